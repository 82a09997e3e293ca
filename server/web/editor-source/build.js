// Makes ../static/editor/: the bundle, the licences of all packages in it, and its SHA-256.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const TO = new URL("../static/editor/", import.meta.url);

const { outputFiles, metafile } = await build({
  entryPoints: ["editor.js"],
  bundle: true,
  format: "esm",
  minify: true,
  target: "es2022",
  charset: "utf8",
  legalComments: "none", // LICENSES.txt has them all
  metafile: true,
  write: false,
});
const bundle = outputFiles[0].contents;

const packages = Object.keys(metafile.inputs)
  .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
  .filter(Boolean);
const licences = [...new Set(packages)].sort().map((name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`;
});

writeFileSync(new URL("editor.js", TO), bundle);
writeFileSync(new URL("LICENSES.txt", TO), licences.join(`\n${"-".repeat(80)}\n\n`));
writeFileSync(new URL("editor.js.sha256", TO), `${createHash("sha256").update(bundle).digest("hex")}  editor.js\n`);
console.log(`${bundle.length} bytes of ${licences.length} packages`);
