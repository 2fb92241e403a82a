// The state of the connection, as a word that everyone can see and hear.

import { el } from "./dom.js";
import { sentenceOf } from "./states.js";

/** @import { State } from "./live.js" */

export class Connection {
  #word = el("span", {});
  #retry;
  #ticking = 0;

  /** @param {() => void} onRetry */
  constructor(onRetry) {
    this.#retry = el("button", { type: "button", className: "small", hidden: true, onclick: onRetry }, "Now");
    this.element = el("div", { className: "connection", role: "status" }, this.#word, this.#retry);
  }

  /** @param {State} state */
  show({ phase, retryInMs = 0, problem }) {
    clearInterval(this.#ticking);
    this.element.dataset.phase = phase;
    this.element.title = problem ? sentenceOf(problem) : "";
    this.#retry.hidden = phase !== "waiting";
    const words = {
      connecting: "Connecting …",
      live: "Live",
      waiting: "Disconnected",
      paused: "Paused",
      gone: "Ended",
    };
    this.#word.textContent = words[phase];
    if (phase !== "waiting") return;
    const until = Date.now() + retryInMs;
    const countdown = el("span", { className: "countdown", "aria-hidden": "true" });
    this.#word.append(countdown);
    const tick = () => {
      countdown.textContent = `, again in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`;
      if (!this.element.isConnected) clearInterval(this.#ticking);
    };
    this.#ticking = setInterval(tick, 1000);
    tick();
  }
}
