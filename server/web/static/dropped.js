// Files that a person drops on an element, or pastes into it.

/** Call `take` with the files, an array, of each drop and each paste. */
export function takeFiles(element, take) {
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  element.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    element.classList.add("dropping");
  });
  element.addEventListener("dragleave", (event) => element.contains(event.relatedTarget) || element.classList.remove("dropping"));
  element.addEventListener("drop", (event) => {
    element.classList.remove("dropping");
    if (!hasFiles(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
  element.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
}

/** A form with the files, as the routes for files take them. */
export function formOf(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name || "pasted.png");
  return form;
}
