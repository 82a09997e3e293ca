// Logging in, by password or by the server's token.

import { post } from "../api.js";
import { errorNote, fill, find } from "../dom.js";

/** The page that was asked for before the login; only of this origin. */
function next() {
  const url = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.href);
  return url.origin === location.origin ? url.pathname + url.search : "/";
}

function submit(form, path, more) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await post(path, { ...Object.fromEntries(new FormData(form)), ...more });
      location.assign(next());
    } catch (error) {
      fill(find("#problem"), errorNote(error));
    }
  });
}

submit(find("#login"), "/auth/login", { cookie: true });
submit(find("#token"), "/auth/login/token", {});
