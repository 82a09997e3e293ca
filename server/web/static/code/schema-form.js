// A form for a tool's input, from the JSON schema of its arguments.

import { h } from "../dom.js";

/** `{element, read, fill}`: `read()` gives the input and throws an Error that names a field; `fill(input)` shows one. */
export function schemaForm(schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, one]) => field(name, one, required.has(name)));
  const others = h("textarea", { rows: 2, spellcheck: "false" });
  const isOpen = !fields.length && schema.additionalProperties !== false;
  const rest = h("label", { hidden: !isOpen }, isOpen ? "Arguments, as JSON" : "Arguments that the tool does not have, as JSON", others);
  return {
    element: h("div", { class: "stack" }, fields.map((one) => one.element), rest, fields.length || isOpen ? null : h("p", { class: "soft small" }, "It takes no arguments.")),
    read() {
      const input = rest.hidden || !others.value.trim() ? {} : json("The other arguments", others.value);
      for (const one of fields) {
        const value = one.read();
        if (value !== undefined) input[one.name] = value;
      }
      return input;
    },
    fill(input) {
      const left = { ...input };
      for (const one of fields) {
        one.fill(left[one.name]);
        delete left[one.name];
      }
      const hasMore = Object.keys(left).length > 0;
      rest.hidden = !isOpen && !hasMore;
      others.value = hasMore ? JSON.stringify(left, null, 1) : "";
    },
  };
}

function field(name, schema, isRequired) {
  const kinds = schema.anyOf?.filter((one) => one.type !== "null") ?? [];
  const own = kinds.length === 1 ? { ...schema, ...kinds[0] } : schema;
  const about = `${name}${isRequired ? "" : " (optional)"}`;
  const hint = own.description ?? (own.default !== undefined && own.default !== null ? `default: ${JSON.stringify(own.default)}` : null);
  const labelled = (control) => h("label", {}, about, control, hint && h("span", { class: "small" }, hint));
  const choices = own.enum ?? (own.type === "boolean" ? [true, false] : null);
  if (choices) {
    const select = h("select", {}, isRequired ? null : h("option", { value: "" }, "—"), choices.map((one) => h("option", { value: JSON.stringify(one) }, String(one))));
    return {
      name, element: labelled(select),
      read: () => (select.value === "" ? undefined : JSON.parse(select.value)),
      fill: (value) => (select.value = value === undefined ? "" : JSON.stringify(value)),
    };
  }
  if (own.type === "string") {
    const area = h("textarea", { rows: 1 });
    return {
      name, element: labelled(area),
      read: () => (area.value === "" && !isRequired ? undefined : area.value),
      fill: (value) => (area.value = value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value)),
    };
  }
  const isNumber = own.type === "integer" || own.type === "number";
  const control = isNumber ? h("input", { inputmode: "decimal", autocomplete: "off" }) : h("textarea", { rows: 2, spellcheck: "false", placeholder: "JSON" });
  return {
    name, element: labelled(control),
    read: () => (control.value.trim() === "" ? undefined : json(name, control.value)),
    fill: (value) => (control.value = value === undefined ? "" : JSON.stringify(value)),
  };
}

function json(name, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name}: ${text.slice(0, 40)} is not JSON. Write a number as 1.5, a text as "text", a list as [1, 2].`);
  }
}
