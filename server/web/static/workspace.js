// The workspace that this browser works in: `?workspace=` in the address, else the last choice, else main.

export function currentWorkspace() {
  const asked = new URLSearchParams(location.search).get("workspace");
  try {
    return asked ?? localStorage.getItem("workspace") ?? "main";
  } catch {
    return asked ?? "main";
  }
}

/** Choose it for this browser. */
export function setWorkspace(name) {
  try {
    localStorage.setItem("workspace", name);
  } catch {
    // Then the choice is in the address alone.
  }
  const url = new URL(location.href);
  if (url.searchParams.has("workspace")) {
    url.searchParams.set("workspace", name);
    history.replaceState(null, "", url);
  }
}
