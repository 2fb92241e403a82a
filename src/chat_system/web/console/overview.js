// The middle of the page while no chat is chosen: the first run, signing in, an application at a glance.

import { Problem, api } from "./api.js";
import { el, foreign } from "./dom.js";
import { session } from "./session.js";
import { empty, shell } from "./states.js";
import { numberOf, shortDayOf } from "./times.js";

/** @import { Application } from "./types.js" */

const ORIGIN = new URL("..", document.baseURI).href.replace(/\/$/, "");

/** What makes an application's token out of the answer that carries it. */
const TAKE_TOKEN = `python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])'`;

/** @returns {HTMLElement} the first run: how to make data */
export function firstRun() {
  const key = session.adminKey === null ? "" : ` -H "Authorization: Bearer $CHAT_ADMIN_KEY"`;
  return empty(
    "Nothing here yet",
    el(
      "p",
      {},
      "An application holds chats, and a chat holds numbered messages. ",
      "These two lines in a terminal make an application and its first chat, which appear here by themselves.",
    ),
    shell([
      `TOKEN=$(curl -s ${ORIGIN}/applications${key} --json '{"name": "My first application"}' | ${TAKE_TOKEN})`,
      `curl -s ${ORIGIN}/applications/$TOKEN/chats --json '{"title": "Lobby"}'`,
    ]),
    el("p", { className: "aside" }, "Or choose “New application” in the list."),
  );
}

/**
 * @param {string} token
 * @param {number} chat
 * @returns {HTMLElement} a chat without messages
 */
export function emptyChat(token, chat) {
  return empty(
    "No message yet",
    el("p", {}, "Write the first one below, or send it from a program:"),
    shell([
      `TOKEN=${token}`,
      `curl -s ${ORIGIN}/applications/$TOKEN/chats/${chat}/messages --json '{"sender": "ada", "body": "Hello"}'`,
    ]),
  );
}

/** @returns {HTMLElement} what is to be chosen */
export function chooseApplication() {
  return empty("Choose an application", el("p", {}, "Its chats and messages are shown here, live."));
}

/**
 * @param {Application} application
 * @returns {HTMLElement}
 */
export function applicationOverview(application) {
  const copy = el("button", { type: "button", className: "small" }, "Copy its token");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(application.token);
    copy.textContent = "Copied";
  });
  return el(
    "div",
    { className: "state" },
    el("h2", {}, foreign(application.name)),
    el(
      "p",
      {},
      application.chats_count
        ? `${numberOf(application.chats_count, "chat")}, since ${shortDayOf(application.created_at)}. Choose one.`
        : "It has no chat yet. Make one with “New chat” in the list, or in a terminal:",
    ),
    !application.chats_count &&
      shell([`TOKEN=${application.token}`, `curl -s ${ORIGIN}/applications/$TOKEN/chats --json '{"title": "Lobby"}'`]),
    navigator.clipboard && copy,
  );
}

/**
 * @param {{onKey: () => void, onToken: (token: string) => void}} listeners
 * @returns {HTMLElement} the two ways in where an admin key is set
 */
export function signIn({ onKey, onToken }) {
  return empty(
    "Sign in",
    el("p", {}, "This server has an admin key. It opens all applications; an application's token opens that one."),
    secretForm("admin-key", "Admin key", async (key) => {
      await api.applications({ limit: 1 }, key);
      session.adminKey = key;
      onKey();
    }),
    secretForm("token", "Application token", async (token) => {
      await api.application(token);
      onToken(token);
    }),
    el("p", { className: "aside" }, "Kept in this tab only, until it is closed."),
  );
}

/**
 * @param {string} name
 * @param {string} label
 * @param {(secret: string) => Promise<void>} open
 */
function secretForm(name, label, open) {
  const input = el("input", {
    id: name,
    name,
    type: "password",
    autocomplete: "off",
    required: true,
    "aria-describedby": `${name}-problem`,
  });
  const problem = el("p", { id: `${name}-problem`, className: "trouble", role: "alert" });
  const form = el(
    "form",
    { className: "secret" },
    el("label", { for: name }, label),
    el("div", { className: "line" }, input, el("button", { type: "submit" }, "Open")),
    problem,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    try {
      await open(input.value.trim());
    } catch (error) {
      const wrong = error instanceof Problem && [401, 403, 404].includes(error.status);
      problem.textContent = wrong
        ? `This ${label.toLowerCase()} opens nothing here.`
        : String(/** @type {Error} */ (error).message);
      input.select();
    }
  });
  return form;
}
