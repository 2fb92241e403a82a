// Where the console begins: the address says what is shown, and this puts it there.

import { addressOf, placeOf } from "./address.js";
import { Problem, api } from "./api.js";
import { Conversation } from "./conversation.js";
import { clearDesks } from "./desks.js";
import { askForName } from "./dialogs.js";
import { byId, el, foreign } from "./dom.js";
import { loadFolding } from "./folding.js";
import { watchHealth } from "./health.js";
import { List, applications, chatsOf } from "./lists.js";
import { applicationOverview, chooseApplication, firstRun, signIn } from "./overview.js";
import { Search } from "./search.js";
import { session, shortOf } from "./session.js";
import { failure, loading } from "./states.js";

/** @import { Application, Chat } from "./types.js" */

/** An application in an address that this tab has not opened is looked for among this many. */
const LOOKED_THROUGH_MAX = 2_000;

const main = byId("main");
const sideHead = byId("side-head");
const sideBody = byId("side-body");

/** @type {List<Application> | List<Chat> | null} */
let list = null;
/** What the list is of: an application's token, "" for the applications, null for nothing yet. @type {string | null} */
let listed = null;
/** @type {Conversation | null} */
let conversation = null;
/** @type {{token: string, chat: number} | null} */
let conversed = null;
/** Of two changes of the address the later one counts. */
let moves = 0;

const search = new Search(byId("search"), () => {
  conversation?.unmark();
  conversation?.focusComposer();
});

async function route() {
  moves += 1;
  const move = moves;
  const { application: short, chat, message } = placeOf(location.hash);
  let token;
  try {
    token = short && (await tokenOf(short));
  } catch (error) {
    if (move === moves) showAlone(failure("Not loaded", error, () => void route()));
    return;
  }
  if (move !== moves) return;
  if (short && !token) {
    showAlone(failure("Unknown here", new Problem(404, "", "This tab knows no application of this address.")));
    return;
  }
  document.body.dataset.level = token ? (chat ? "chat" : "application") : "applications";
  if (!token) showApplications();
  else if (chat) showChat(token, chat, message);
  else await showApplication(token);
}

/** @param {string} short @returns {Promise<string | undefined>} */
async function tokenOf(short) {
  const known = session.tokenOf(short);
  if (known) return known;
  let next = /** @type {import("./api.js").Query | null} */ ({});
  for (let seen = 0; next && seen < LOOKED_THROUGH_MAX; seen += 200) {
    const page = await api.applications({ limit: 200, ...next }).catch((error) => {
      if (error instanceof Problem && !error.passes) return null;
      throw error;
    });
    const found = page?.items.find((application) => shortOf(application.token) === short);
    if (found) {
      session.remember(found.token);
      return found.token;
    }
    next = page?.next ?? null;
  }
  return undefined;
}

function showApplications() {
  leaveChat();
  search.close();
  document.title = "Chat System";
  if (listed === "") {
    onApplications(/** @type {Application[]} */ (list?.items ?? []));
    return;
  }
  main.replaceChildren();
  main.dataset.shows = "";
  const add = el("button", { type: "button", className: "small", onclick: createApplication }, "New application");
  const leave =
    session.adminKey !== null &&
    el("button", { type: "button", className: "small quiet", onclick: signOut }, "Sign out");
  const shown = new List(applications, onApplications);
  replaceList("", shown, el("h2", {}, "Chat System"), leave, add);
  shown.onFailed = (error) => {
    if (!(error instanceof Problem) || (error.status !== 401 && error.status !== 403)) return;
    session.adminKey = null;
    replaceList(null, null, el("h2", {}, "Chat System"));
    main.replaceChildren(signIn({ onKey: () => void route(), onToken: (token) => open(token) }));
    document.body.dataset.alone = "main";
    void showKnown();
  };
}

/** Who has no admin key finds the applications again that were opened in this tab. */
async function showKnown() {
  const known = await Promise.all(
    session.tokens.map((token) =>
      api.application(token).catch((error) => {
        if (error instanceof Problem && error.status === 404) session.forget(token);
        return null;
      }),
    ),
  );
  if (listed !== null) return;
  const items = known.filter((application) => application !== null);
  const links = items.map((application) =>
    el("li", {}, el("a", { href: addressOf(application.token) }, foreign(application.name, "name"))),
  );
  if (items.length)
    sideBody.replaceChildren(
      el("p", { className: "aside" }, "Opened in this tab"),
      el("ul", { className: "list" }, ...links),
    );
}

/** @param {Application[]} items */
function onApplications(items) {
  if (placeOf(location.hash).application) return;
  document.body.dataset.alone = items.length ? "" : "main";
  // Once only: the list is read again and again.
  const shows = items.length ? "choice" : "first run";
  if (main.dataset.shows !== shows) main.replaceChildren(items.length ? chooseApplication() : firstRun());
  main.dataset.shows = shows;
}

/** @param {string} token */
async function showApplication(token) {
  leaveChat();
  showChats(token);
  search.moveTo(token);
  const move = moves;
  main.replaceChildren(loading("the application"));
  try {
    const application = await api.application(token);
    if (move !== moves) return;
    document.title = `\u2068${application.name}\u2069 – Chat System`;
    main.replaceChildren(applicationOverview(application));
  } catch (error) {
    if (move === moves) showAlone(failure("Not loaded", error, () => void route()));
  }
}

/** @param {string} token @param {number} chat @param {number} [message] */
function showChat(token, chat, message) {
  showChats(token);
  search.moveTo(token, chat);
  list?.choose(String(chat));
  if (conversation && conversed?.token === token && conversed.chat === chat) {
    if (message) void conversation.show(message);
    return;
  }
  leaveChat();
  main.dataset.shows = "";
  conversation = new Conversation(main, token, chat, search, () => {
    leaveChat();
    showChat(token, chat, message);
  });
  conversed = { token, chat };
  void conversation.open(message);
}

/** @param {string} token */
function showChats(token) {
  document.body.dataset.alone = "";
  list?.choose("");
  if (listed === token) return;
  session.remember(token);
  const name = el("h2", {}, "…");
  const back = el("a", {
    className: "icon back",
    href: addressOf(),
    "aria-label": "All applications",
    title: "All applications",
  });
  const find = el("button", {
    type: "button",
    className: "icon find",
    "aria-label": "Search all chats",
    title: "Search all chats",
    onclick: () => search.open("application"),
  });
  const add = el("button", { type: "button", className: "small", onclick: () => createChat(token) }, "New chat");
  replaceList(token, new List(chatsOf(token), () => {}), back, name, find, add);
  api.application(token).then(
    (application) => name.replaceChildren(foreign(application.name)),
    () => name.replaceChildren("Application"),
  );
}

function leaveChat() {
  conversation?.close();
  conversation = conversed = null;
}

/** @param {HTMLElement} state */
function showAlone(state) {
  leaveChat();
  replaceList(
    null,
    null,
    el("a", { className: "icon back", href: addressOf(), "aria-label": "All applications" }),
    el("h2", {}, "Chat System"),
  );
  document.body.dataset.alone = "main";
  main.replaceChildren(state);
}

/**
 * @param {string | null} what
 * @param {typeof list} next
 * @param {...import("./dom.js").Child} head
 */
function replaceList(what, next, ...head) {
  list?.close();
  list = next;
  listed = what;
  const hadFocus = sideHead.contains(document.activeElement) || sideBody.contains(document.activeElement);
  sideHead.replaceChildren(...head.filter((child) => child instanceof Node));
  sideBody.replaceChildren(...(next ? [next.element] : []));
  // Who came here by a link of the list before goes on in this one.
  const title = sideHead.querySelector("h2");
  if (title && hadFocus) {
    title.tabIndex = -1;
    title.focus();
  }
}

/** @param {string} token */
function open(token) {
  session.remember(token);
  location.hash = addressOf(token);
}

function signOut() {
  session.end();
  clearDesks();
  search.forget();
  listed = null;
  if (location.hash.length > 2) location.hash = addressOf();
  else void route();
}

function createApplication() {
  askForName("New application", "Name", true, async (name, key) =>
    open((await api.createApplication(name, key)).token),
  );
}

/** @param {string} token */
function createChat(token) {
  askForName("New chat", "Title, if it has one", false, async (title, key) => {
    const chat = await api.createChat(token, title.trim() ? title : null, key);
    location.hash = addressOf(token, chat.number);
    void list?.refresh();
  });
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const typing = event.target instanceof Element && event.target.matches("input, textarea, dialog *");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || !listed) return;
  event.preventDefault();
  search.open("chat");
}

/** @param {MouseEvent} event */
function onClick(event) {
  const link = event.target instanceof Element && /** @type {HTMLAnchorElement | null} */ (event.target.closest("a"));
  const elsewhere = event.ctrlKey || event.metaKey || event.shiftKey;
  // The browser tells of a new address only: who chooses the same one again, having scrolled away, wants to be there.
  if (link && !elsewhere && placeOf(link.hash).application && link.hash === location.hash) void route();
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("keydown", onKey);
document.addEventListener("click", onClick);
window.addEventListener("hashchange", () => void route());
// Without the table a search still finds all, and marks what it can.
loadFolding().catch(() => {});
watchHealth();
void route();
