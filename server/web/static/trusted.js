// The one policy by which markup and workers may be made: https://www.w3.org/TR/trusted-types/
// `dom.js` uses it for what the server has cleaned, `live.js` for a file of the pages.

const asItIs = { createHTML: (html) => html, createScriptURL: (url) => String(url) };

export const trusted = globalThis.trustedTypes?.createPolicy("hearth", asItIs) ?? asItIs;
