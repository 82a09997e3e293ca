// People: oneself, and, for an admin, all.

import { get, post } from "../api.js";
import { find } from "../dom.js";
import { openAdmin } from "../people/admin.js";
import { failed, onSubmit, openKeys, openMembers, showLogins, showUsage, showYou } from "../people/own.js";

async function open() {
  const me = await get("/auth/me");
  showYou(me);
  const hasAccount = me.username !== null;
  find("#keys-section").hidden = find("#logins-section").hidden = find("#members-section").hidden = !hasAccount;
  find("#first").hidden = me.accounts;
  find("#usage-by").addEventListener("change", () => showUsage().catch(failed));
  const isAdmin = me.scopes.includes("admin");
  try {
    await Promise.all([
      showUsage(),
      hasAccount && openKeys(),
      hasAccount && showLogins(),
      hasAccount && openMembers(),
      isAdmin && openAdmin(),
    ]);
  } finally {
    // Shown when what is above it has its size: a button that moves under the pointer is not clicked.
    find("#admin").hidden = !isAdmin;
  }
}

onSubmit("#first-form", async ({ username, password }) => {
  await post("/auth/register", { username, password });
  await post("/auth/login", { username, password, cookie: true });
  location.reload();
});
open().catch(failed);
