// How the server is, at the foot of the list: ready or not and, in stack mode, how far the workers are behind.

import { Problem, api } from "./api.js";
import { byId, el } from "./dom.js";
import { sentenceOf } from "./states.js";
import { countOf } from "./times.js";

const ASK_EVERY_MS = 5_000;
/** What has not answered by then is not well. A browser has few connections to one server, and others need them. */
const ANSWER_MAX_MS = 4_000;

/** A lag that no one needs to know of. */
const LAG_QUIET_S = 2;

const PROJECTIONS = { store: "Store", search: "Search" };

/**
 * @param {string} text metrics in Prometheus' text format
 * @param {string} name
 * @returns {Map<string, number>} the values of a metric by its label `projection`
 */
export function byProjection(text, name) {
  const found = new Map();
  for (const [, projection, value] of text.matchAll(new RegExp(`^${name}\\{projection="(\\w+)"\\} (\\S+)$`, "gm")))
    found.set(projection, Number(value));
  return found;
}

/**
 * @typedef {object} Report
 * @property {"good" | "poor" | "bad"} kind
 * @property {string} word
 * @property {string} [detail]
 * @property {HTMLElement} [table]
 */

/** Show it, from now on. */
export function watchHealth() {
  const word = el("p", { role: "status" });
  const rest = el("div");
  byId("health").append(word, rest);
  let timer = 0;
  let isLooking = false;
  const look = async () => {
    // One look at a time: an old answer never comes after a newer one.
    if (document.hidden || isLooking) return;
    clearTimeout(timer);
    isLooking = true;
    const { kind, word: said, detail = "", table } = await report();
    isLooking = false;
    timer = setTimeout(look, ASK_EVERY_MS);
    word.className = `dot ${kind}`;
    // What is set anew is read out anew.
    if (word.textContent !== said) word.textContent = said;
    rest.replaceChildren(detail && el("p", { className: "aside" }, detail), table ?? "");
  };
  document.addEventListener("visibilitychange", look);
  void look();
}

/** @returns {Promise<Report>} */
async function report() {
  let ready;
  try {
    ready = await api.ready(AbortSignal.timeout(ANSWER_MAX_MS));
  } catch (error) {
    if (!(error instanceof Problem) || error.status === 0) return { kind: "bad", word: "No answer" };
    return { kind: "bad", word: "Not ready", detail: sentenceOf(error) };
  }
  const table = tableOf(await api.metrics(AbortSignal.timeout(ANSWER_MAX_MS)).catch(() => ""));
  if (ready.search) return { kind: "poor", word: "Ready, but for search", detail: ready.search, table };
  return { kind: "good", word: "Ready", table };
}

/**
 * @param {string} metrics
 * @returns {HTMLElement | undefined} how far the workers are behind; only stack mode applies later what it has accepted
 */
function tableOf(metrics) {
  const backlog = byProjection(metrics, "chat_backlog_entries");
  if (!backlog.has("store")) return undefined;
  const lag = byProjection(metrics, "chat_lag_seconds");
  const setAside = byProjection(metrics, "chat_set_aside_entries");
  const rows = Object.entries(PROJECTIONS).map(([projection, name]) => {
    const seconds = lag.get(projection) ?? 0;
    const waits = setAside.get(projection) ?? 0;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", {}, countOf(backlog.get(projection) ?? 0)),
      el("td", { className: seconds > LAG_QUIET_S ? "late" : "" }, `${seconds.toFixed(1)} s`),
      el("td", { className: waits ? "late" : "" }, countOf(waits)),
    );
  });
  const head = ["Backlog", "Lag", "Set aside"].map((name) => el("th", { scope: "col" }, name));
  return el(
    "table",
    { "aria-label": "How far the workers are behind" },
    el("thead", {}, el("tr", {}, el("td", {}), ...head)),
    el("tbody", {}, ...rows),
  );
}
