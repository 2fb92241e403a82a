// The HTTP API, one function for each operation that the console uses.

import { session } from "./session.js";

/** @import { Application, Chat, Message } from "./types.js" */

const REQUEST_TIMEOUT_MS = 30_000;

/** Where the API is: beside the folder of this page, so that a proxy may mount both elsewhere. */
const ROOT = new URL("../", document.baseURI);

/** What the server refuses, or that it does not answer (status 0). */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} code the API's own, or "unreachable"
   * @param {string} detail a sentence for people
   * @param {number} [retryAfterS]
   */
  constructor(status, code, detail, retryAfterS = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/**
 * @template T
 * @typedef {object} Page
 * @property {T} items
 * @property {Query | null} next the query of the next page
 */

/** @typedef {Record<string, string | number>} Query */

/**
 * @typedef {object} Options
 * @property {Query} [query]
 * @property {unknown} [body]
 * @property {string} [key] makes a repeat of the request harmless
 * @property {AbortSignal} [signal]
 * @property {string | null} [bearer]
 */

/**
 * @param {string} path
 * @param {Query} [query]
 */
function urlOf(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
  return url;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<Response>} an answer of the 2xx kind
 * @throws {Problem} what else happened; an abort of `signal` is thrown as it comes
 */
async function ask(method, path, { query, body, key, signal, bearer } = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  if (bearer) headers["Authorization"] = `Bearer ${bearer}`;
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  try {
    const response = await fetch(urlOf(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      cache: "no-store",
    });
    if (!response.ok) throw await problemOf(response);
    return response;
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
    throw new Problem(0, "unreachable", "The server does not answer.");
  }
}

/**
 * @param {Response} response a refusal
 * @returns {Promise<Problem>}
 */
export async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const detail = told.detail ?? `The answer was ${response.status} ${response.statusText}.`;
  return new Problem(response.status, told.code ?? "", detail, Number(response.headers.get("Retry-After")) || 0);
}

/**
 * @param {string} path
 * @param {Options} options
 * @returns {Promise<Page<any>>}
 */
async function page(path, options) {
  const response = await ask("GET", path, options);
  // Of the link only the query is taken: a proxy may have moved the path.
  const link = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link") ?? "")?.[1];
  const next = link ? Object.fromEntries(new URL(link, ROOT).searchParams) : null;
  return { items: await response.json(), next };
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
const value = async (method, path, options) => (await ask(method, path, options)).json();

/**
 * @param {string} token
 * @param {number} [chat]
 */
function pathOf(token, chat) {
  const application = `applications/${encodeURIComponent(token)}`;
  return chat === undefined ? application : `${application}/chats/${chat}`;
}

/** @returns {string} a new idempotency key. `crypto.randomUUID` is missing where a page came over plain HTTP. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

export const api = {
  /** @param {Query} query @param {string | null} [adminKey] @returns {Promise<Page<Application[]>>} */
  applications: (query, adminKey = session.adminKey) => page("applications", { query, bearer: adminKey }),

  /** @param {string} token @param {AbortSignal} [signal] @returns {Promise<Application>} */
  application: (token, signal) => value("GET", pathOf(token), { signal }),

  /** @param {string} name @param {string} key @returns {Promise<Application>} */
  createApplication: (name, key) => value("POST", "applications", { body: { name }, key, bearer: session.adminKey }),

  /** @param {string} token @param {Query} query @param {AbortSignal} [signal] @returns {Promise<Page<Chat[]>>} */
  chats: (token, query, signal) => page(`${pathOf(token)}/chats`, { query, signal }),

  /** @param {string} token @param {number} chat @param {AbortSignal} [signal] @returns {Promise<Chat>} */
  chat: (token, chat, signal) => value("GET", pathOf(token, chat), { signal }),

  /** @param {string} token @param {string | null} title @param {string} key @returns {Promise<Chat>} */
  createChat: (token, title, key) => value("POST", `${pathOf(token)}/chats`, { body: { title }, key }),

  /**
   * @param {string} token @param {number} chat @param {Query} query @param {AbortSignal} [signal]
   * @returns {Promise<Message[]>}
   */
  messages: (token, chat, query, signal) => value("GET", `${pathOf(token, chat)}/messages`, { query, signal }),

  /**
   * @param {string} token @param {number} chat @param {{sender: string | null, body: string}} message
   * @param {string} key
   * @returns {Promise<Message>}
   */
  post: (token, chat, message, key) => value("POST", `${pathOf(token, chat)}/messages`, { body: message, key }),

  /** @param {string} token @param {number} chat @param {number} number @returns {Promise<Message>} */
  message: (token, chat, number) => value("GET", `${pathOf(token, chat)}/messages/${number}`),

  /**
   * @param {string} token @param {number} chat @param {number} number @param {string} body
   * @returns {Promise<Message>}
   */
  edit: (token, chat, number, body) => value("PATCH", `${pathOf(token, chat)}/messages/${number}`, { body: { body } }),

  /** @param {string} token @param {number} chat @param {number} number */
  remove: async (token, chat, number) => {
    await ask("DELETE", `${pathOf(token, chat)}/messages/${number}`);
  },

  /**
   * @param {string} token
   * @param {number | undefined} chat one chat, or the whole application
   * @param {Query} query @param {AbortSignal} [signal]
   * @returns {Promise<Page<Message[]>>}
   */
  search: (token, chat, query, signal) => page(`${pathOf(token, chat)}/messages/search`, { query, signal }),

  /** @param {AbortSignal} [signal] @returns {Promise<{status: string, search?: string}>} */
  ready: (signal) => value("GET", "health/ready", { signal }),

  /** @param {AbortSignal} [signal] @returns {Promise<string>} in Prometheus' text format */
  metrics: async (signal) => (await ask("GET", "metrics", { signal })).text(),

  /** @returns {Promise<Record<string, string>>} what the server folds each character to, where that is another */
  folding: () => value("GET", "console/folding.json"),

  /** @param {string} token @param {number} chat @param {number} after @returns {URL} */
  events: (token, chat, after) => urlOf(`${pathOf(token, chat)}/events`, { after }),
};
