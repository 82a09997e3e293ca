// What is a person's own: who they are, their keys, their logins, the members of their workspace, their usage.

import { get, part, post, put, remove } from "../api.js";
import { act, errorNote, fill, find, h, table, toast } from "../dom.js";
import { count, seconds, time } from "../format.js";
import { currentWorkspace } from "../workspace.js";

export const failed = (error) => fill(find("#problem"), errorNote(error));
/** Send a form's fields. What was refused is shown in the form. */
export function onSubmit(selector, send) {
  const form = find(selector);
  const note = h("div", { class: "wide" });
  form.append(note);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fill(note);
    send(Object.fromEntries(new FormData(form)), form).catch((error) => fill(note, errorNote(error)));
  });
}

export function showYou(me) {
  const name = me.username ?? "You have the server's link";
  const password = me.username && h("details", {}, h("summary", {}, "Change the password"), h("form", { class: "row", id: "password-form" },
    h("label", {}, "Old password", h("input", { name: "old", type: "password", autocomplete: "current-password", required: true })),
    h("label", {}, "New password", h("input", { name: "new", type: "password", autocomplete: "new-password", minlength: 8, required: true })),
    h("button", {}, "Change")));
  const out = me.credential !== "local" && act("Log out", async () => {
    await post("/auth/logout");
    location.assign("/ui/login");
  });
  fill(find("#you"), h("div", { class: "spread" }, h("p", {}, h("strong", {}, name), " ", h("span", { class: "tag" }, me.role)), out), password);
  if (password) onSubmit("#password-form", async (given, form) => {
    await put("/auth/password", given);
    form.reset();
    toast("The password is changed. All other logins have ended.");
  });
}

export async function showKeys(given = null) {
  const { keys } = given ?? (await get("/auth/keys"));
  fill(find("#keys"), keys.length ? table(["Name", "Key", "Scopes", "Last used", "Ends", "Actions"], keys.map((one) => [one.name, h("code", {}, `hearth_${one.prefix}_…`), one.scopes.join(", "),
    one.used_at ? time(one.used_at) : "never", one.expires_at ? time(one.expires_at) : "never", act("Revoke", async () => showKeys(await remove(`/auth/keys/${part(one.prefix)}`)), "danger")]))
    : h("p", { class: "soft" }, "You have none."));
}

export function openKeys() {
  onSubmit("#key-form", async ({ name, days }, form) => {
    const made = await post("/auth/keys", { name, ...(days ? { expires_in_days: Number(days) } : {}) });
    form.reset();
    fill(find("#new-key"), h("div", { class: "note" }, h("p", {}, "Copy the key now. It is not shown again."), h("code", { class: "text" }, made.key)));
    await showKeys();
  });
  return showKeys();
}

export async function showLogins(given = null) {
  const { logins } = given ?? (await get("/auth/logins"));
  fill(find("#logins"), table(["Since", "Ends", "Actions"], logins.map((one) => [time(one.created_at), time(one.expires_at),
    one.current ? h("span", { class: "tag live" }, "this browser") : act("End it", async () => showLogins(await remove(`/auth/logins/${part(one.login_id)}`)), "danger")])));
}

export async function openMembers() {
  const workspace = currentWorkspace();
  const path = `/workspaces/${part(workspace)}/members`;
  fill(find("#members-of"), workspace);
  if (workspace === "main") {
    find("#member-form").hidden = true;
    return void fill(find("#members"), h("p", { class: "soft" }, "The lab's common code. Everybody may ask here; researchers and admins may change it."));
  }
  async function show() {
    const { members } = await get(path);
    fill(find("#members"), members.length ? table(["Who", "Role", "Actions"], members.map((one) => [one.username, one.role, act("Remove", () => remove(`${path}/${part(one.username)}`).then(show), "danger")]))
      : h("p", { class: "soft" }, "Only you."));
  }
  onSubmit("#member-form", async ({ username, role }, form) => {
    await put(`${path}/${part(username)}`, { role });
    form.reset();
    await show();
  });
  return show();
}

export async function showUsage() {
  const by = find("#usage-by").value;
  const { usage } = await get("/usage", { by, limit: 200 });
  fill(find("#usage"), usage.length ? table([by[0].toUpperCase() + by.slice(1), "Tokens processed", "Tokens written", "Questions", "Jobs took"],
    usage.map((one) => [one[by] || "none", count(one.tokens_processed), count(one.tokens_written), count(one.runs), seconds(one.job_seconds)]))
    : h("p", { class: "soft" }, "Nothing was used yet."));
}
