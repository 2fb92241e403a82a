// What this tab remembers until it is closed, and no longer: keys and tokens open everything, so they are kept in
// sessionStorage only, never in the address and never on disk.

const ADMIN_KEY = "admin-key";
const TOKENS = "tokens";
const SENDER = "sender";
const TOKENS_MAX = 50;

/** How much of a token the address may show: enough to tell applications apart, too little to open one. */
const SHORT_CHARACTERS = 12;

/**
 * @param {string} token
 * @returns {string} what stands for the token in the address
 */
export function shortOf(token) {
  return token.slice(0, SHORT_CHARACTERS);
}

export const session = {
  get adminKey() {
    return sessionStorage.getItem(ADMIN_KEY);
  },
  set adminKey(key) {
    if (key === null) sessionStorage.removeItem(ADMIN_KEY);
    else sessionStorage.setItem(ADMIN_KEY, key);
  },

  /** The name under which messages are sent; empty for none. */
  get sender() {
    return sessionStorage.getItem(SENDER) ?? "";
  },
  set sender(name) {
    sessionStorage.setItem(SENDER, name);
  },

  /** @returns {string[]} tokens that were opened in this tab, the latest first */
  get tokens() {
    return JSON.parse(sessionStorage.getItem(TOKENS) ?? "[]");
  },

  /** @param {string} token */
  remember(token) {
    const others = this.tokens.filter((known) => known !== token);
    sessionStorage.setItem(TOKENS, JSON.stringify([token, ...others].slice(0, TOKENS_MAX)));
  },

  /** @param {string} token */
  forget(token) {
    sessionStorage.setItem(TOKENS, JSON.stringify(this.tokens.filter((known) => known !== token)));
  },

  /**
   * @param {string} short
   * @returns {string | undefined} the token that begins so, if it was opened in this tab
   */
  tokenOf(short) {
    return this.tokens.find((token) => shortOf(token) === short);
  },

  /** Forget everything. */
  end() {
    sessionStorage.clear();
  },
};
