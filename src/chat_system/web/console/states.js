// What stands where there is nothing to show: nothing yet, not yet, or not at all.

import { Problem } from "./api.js";
import { el } from "./dom.js";

/** @import { Child } from "./dom.js" */

/**
 * @param {string} title
 * @param {...Child} children
 */
export function empty(title, ...children) {
  return el("div", { className: "state" }, el("h2", {}, title), ...children);
}

/** @param {string} what is being loaded */
export function loading(what) {
  return el(
    "div",
    { className: "state loading", role: "status" },
    el("span", { className: "spinner" }),
    `Loading ${what} …`,
  );
}

/**
 * @param {unknown} error
 * @returns {string} a sentence for people
 */
export function sentenceOf(error) {
  if (!(error instanceof Problem)) return String(error);
  return error.code === "too_many" ? `${error.message} Too many requests at once.` : error.message;
}

/**
 * @param {string} title
 * @param {unknown} error
 * @param {() => void} [retry]
 */
export function failure(title, error, retry) {
  return el(
    "div",
    { className: "state failure", role: "alert" },
    el("h2", {}, title),
    el("p", {}, sentenceOf(error)),
    retry && el("button", { type: "button", onclick: retry }, "Try again"),
  );
}

/**
 * Lines for a terminal.
 * @param {string[]} lines
 */
export function shell(lines) {
  const text = lines.join("\n");
  const copy = el("button", { type: "button", className: "small quiet" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  });
  return el(
    "div",
    { className: "shell" },
    el("pre", { tabIndex: 0, "aria-label": "Lines for a terminal", role: "region" }, text),
    // Browsers keep the clipboard from pages that came over plain HTTP from another machine.
    navigator.clipboard && copy,
  );
}
