// Questions that stand before everything else: a new application, a new chat, a deletion.

import { newKey } from "./api.js";
import { el } from "./dom.js";
import { sentenceOf } from "./states.js";

/**
 * @param {string} title
 * @param {HTMLElement[]} content
 * @param {string} action
 * @param {() => Promise<void>} carryOut what fails in it is shown, and may be tried again
 */
function ask(title, content, action, carryOut) {
  const problem = el("p", { className: "trouble", role: "alert" });
  const submit = el("button", { type: "submit", className: "primary" }, action);
  const cancel = el("button", { type: "button", className: "quiet", onclick: () => dialog.close() }, "Cancel");
  const form = el(
    "form",
    {},
    el("h2", { id: "question" }, title),
    ...content,
    problem,
    el("div", { className: "buttons" }, cancel, submit),
  );
  const dialog = el("dialog", { "aria-labelledby": "question" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await carryOut();
      dialog.close();
    } catch (error) {
      problem.textContent = sentenceOf(error);
    } finally {
      submit.disabled = false;
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * @param {string} title
 * @param {string} label
 * @param {boolean} required
 * @param {(text: string, key: string) => Promise<void>} create called with the same key for each attempt at one text
 */
export function askForName(title, label, required, create) {
  const input = el("input", { id: "answer", name: "answer", autocomplete: "off", maxLength: 255, required });
  let key = newKey();
  input.addEventListener("input", () => (key = newKey()));
  ask(title, [el("label", { for: "answer" }, label), input], "Create", () => create(input.value, key));
}

/**
 * @param {number} number
 * @param {() => void} remove
 */
export function askWhetherToDelete(number, remove) {
  const consequence = "Its number stays, its text is gone for everyone, and there is no way back.";
  ask(`Delete message ${number}?`, [el("p", {}, consequence)], "Delete", async () => remove());
}
