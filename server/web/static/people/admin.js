// What an admin decides: accounts, invitations, quotas; and the audit log.

import { get, part, post, put, remove } from "../api.js";
import { confirmed, openDialog } from "../dialog.js";
import { act, fill, find, h, refused, table, toast } from "../dom.js";
import { bytes, count, time } from "../format.js";
import { failed, onSubmit } from "./own.js";

const ROLES = ["admin", "researcher", "guest"];
const LIMITS = ["tokens_per_day", "runs_at_once", "jobs_at_once", "disk_bytes"];

async function showPeople() {
  const { people } = await get("/people");
  const rows = people.filter((one) => !one.deleted_at).map((one) => {
    const role = h("select", { aria: { label: `Role of ${one.username}` } }, ROLES.map((name) => h("option", { selected: name === one.role }, name)));
    role.addEventListener("change", () => put(`/people/${part(one.username)}/role`, { role: role.value }).then(() => toast(`${one.username} is ${role.value} now.`)).catch(refused).then(showPeople));
    const open = act("Open", () => openFor(one.username));
    const gone = act("Delete", async () => {
      if (!(await confirmed(`Delete the account ${one.username}?`, "What belongs to it stays, and nobody else gets the name.", "Delete the account"))) return;
      await remove(`/people/${part(one.username)}`);
      await showPeople();
    }, "danger");
    return [one.username, role, time(one.created_at), one.login_at ? time(one.login_at) : "never", h("div", { class: "row" }, open, gone)];
  });
  fill(find("#people"), rows.length ? table(["Username", "Role", "Since", "Last login", "Actions"], rows) : h("p", { class: "soft" }, "There are no accounts."));
}

/** Read for an hour what belongs to somebody. */
function openFor(username) {
  const dialog = openDialog(`Read what belongs to ${username}?`, h("form", { class: "stack", id: "open-form" },
    h("label", {}, "Why? The audit log saves your reason", h("input", { name: "reason", required: true, maxlength: 1000, autocomplete: "off" })),
    h("div", { class: "row" }, h("button", { class: "primary" }, "Open for an hour"), h("button", { type: "button", on: { click: () => dialog.close() } }, "Close"))));
  onSubmit("#open-form", async (given) => {
    const { until } = await post(`/people/${part(username)}/open`, given);
    dialog.close();
    toast(`Until ${time(until)} you may read what belongs to ${username}.`);
  });
}

async function showQuotas() {
  const { quotas } = await get("/quotas", { limit: 1000 });
  fill(find("#quotas"), quotas.length ? table(["Name", "Tokens a day", "Questions at once", "Jobs at once", "Disk"], quotas.map((one) => [one.name, ...LIMITS.map((name) => one.limits[name] === undefined || one.limits[name] === null ? "no limit" : (name === "disk_bytes" ? bytes : count)(one.limits[name]))]))
    : h("p", { class: "soft" }, "There are none."));
}

let last = null;
async function showAudit(before = null) {
  const { events, next } = await get("/audit", { limit: 50, before, act: find("#audit-act").value });
  last = next;
  const rows = events.map((one) => [time(one.recorded_at), one.actor, h("code", {}, one.act), one.target, h("code", { class: "small" }, Object.keys(one.details).length ? JSON.stringify(one.details) : "")]);
  const shown = table(["When", "Who", "Did", "To", "Details"], rows, ["tight", "tight", "tight"]);
  if (before) find("#audit tbody").append(...shown.querySelectorAll("tbody tr"));
  else fill(find("#audit"), shown);
  find("#audit-more").hidden = !next;
}

export async function openAdmin() {
  onSubmit("#invite-form", async ({ role }) => {
    const made = await post("/auth/invitations", { role });
    // In the fragment: it is never sent to a server, and no log has it.
    const link = `${location.origin}/ui/register#invitation=${encodeURIComponent(made.invitation)}`;
    fill(find("#invitation"), h("div", { class: "note" }, h("p", {}, `For one account, until ${time(made.expires_at)}. Send this link:`), h("code", { class: "text" }, link)));
  });
  onSubmit("#quota-form", async (given, form) => {
    const limits = Object.fromEntries(LIMITS.filter((name) => given[name] !== "").map((name) => [name, Number(given[name])]));
    await put(`/quotas/${part(given.name)}`, limits);
    form.reset();
    await showQuotas();
  });
  find("#audit-act").addEventListener("change", () => showAudit().catch(failed));
  find("#audit-more").addEventListener("click", () => showAudit(last).catch(failed));
  await Promise.all([showPeople(), showQuotas(), showAudit()]);
}
