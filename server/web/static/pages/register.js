// Making an account with an invitation, which the link may bring along.

import { post } from "../api.js";
import { errorNote, fill, find } from "../dom.js";

const form = find("#register");
const invitation = new URLSearchParams(location.hash.slice(1)).get("invitation");
if (invitation) form.elements.invitation.value = invitation;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { username, password, invitation: given } = Object.fromEntries(new FormData(form));
  try {
    await post("/auth/register", { username, password, invitation: given });
    await post("/auth/login", { username, password, cookie: true });
    location.assign("/ui/ask");
  } catch (error) {
    fill(find("#problem"), errorNote(error));
  }
});
