// The theme that this browser has chosen, before the first paint. Without a choice: the system's.
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden. Then the system's theme stays.
}
