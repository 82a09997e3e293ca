// ReDoc. Its search would need a worker made from text, so it has none. Loaded before the library: it makes elements
// for its styles and knows no nonce, so they get that of this page.

const { nonce } = document.currentScript;
const createElement = document.createElement.bind(document);
document.createElement = (name, options) => {
  const made = createElement(name, options);
  if (name === "style") made.nonce = nonce;
  return made;
};

addEventListener("DOMContentLoaded", () => {
  Redoc.init("/openapi.json", { disableSearch: true, hideDownloadButton: true, nativeScrollbars: true }, document.querySelector("#api"));
});
