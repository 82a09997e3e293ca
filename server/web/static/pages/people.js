import { empty, fill, find } from "../dom.js";

fill(find("#page"), empty("Soon"));
