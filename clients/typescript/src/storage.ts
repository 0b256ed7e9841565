/** A session that outlives the page and is shared by its tabs, which renew it in turn. */

import type { Keeper, Tokens } from "./index.js";

/** What was exchanged last, and what came of it. */
interface Exchange {
  readonly used: string;
  readonly fresh: Tokens;
}

/** A session that outlives the page, and is shared by its tabs. */
export function inStorage(name = "heika.session"): Keeper {
  function write(tokens: Tokens | null): void {
    if (tokens !== null) localStorage.setItem(name, JSON.stringify(tokens));
    else {
      localStorage.removeItem(name);
      void keep(name, null).catch(() => undefined);
    }
  }

  return {
    read: () => JSON.parse(localStorage.getItem(name) ?? "null") as Tokens | null,
    write,
    async once(used, exchange) {
      const turn = async () => {
        // A tab may see in localStorage what was there before the last turn: browsers tell one another's tabs later.
        const last = await lastOf(name).catch(() => null);
        if (last?.used === used) return last.fresh;
        const fresh = await exchange();
        if ("access_token" in fresh) await keep(name, { used, fresh }).catch(() => undefined);
        return fresh;
      };
      const locks = globalThis.navigator?.locks;
      return locks ? locks.request(name, turn) : inTurn(name, turn);
    },
  };
}

/** What pages without https have in place of locks: a database's transactions, of which one is a tab's turn. */
async function inTurn<Result>(name: string, turn: () => Promise<Result>): Promise<Result> {
  const mine = Math.random();
  try {
    while (!(await take(`${name} turn`, mine))) await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
  } catch {
    // A browser that keeps no database shares nothing among tabs, nor can they wait for one another.
    return turn();
  }
  try {
    return await turn();
  } finally {
    await take(`${name} turn`, mine, 0).catch(() => undefined);
  }
}

const LOOK_AGAIN_MS = 50;
/** As long as an exchange may take; the turn of a tab that was closed ends by itself. */
const TURN_MS = 20_000;

interface Turn {
  readonly whose: number;
  readonly until: number;
}

/** Take a turn, or say that another tab has it; 0 milliseconds give one's own back. */
async function take(key: string, mine: number, lasts = TURN_MS): Promise<boolean> {
  let taken = false;
  await change((store) => {
    const asked = store.get(key);
    asked.onsuccess = () => {
      const held = asked.result as Turn | undefined;
      const now = Date.now();
      // A clock that was put back must not leave a turn that never ends.
      taken = held === undefined || held.whose === mine || held.until <= now || held.until > now + TURN_MS;
      if (taken) store.put({ whose: mine, until: now + lasts } satisfies Turn, key);
    };
  });
  return taken;
}

function opened(): Promise<IDBDatabase> {
  return new Promise((done, fail) => {
    const asked = indexedDB.open("heika", 1);
    asked.onupgradeneeded = () => void asked.result.createObjectStore("exchanges");
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => fail(asked.error ?? new Error("the browser keeps no database"));
  });
}

async function lastOf(name: string): Promise<Exchange | null> {
  const database = await opened();
  try {
    return await new Promise((done, fail) => {
      const asked = database.transaction("exchanges").objectStore("exchanges").get(name);
      asked.onsuccess = () => done((asked.result as Exchange | undefined) ?? null);
      asked.onerror = () => fail(asked.error ?? new Error("the exchange cannot be read"));
    });
  } finally {
    database.close();
  }
}

/** Once this is done, every tab reads it. */
function keep(name: string, exchange: Exchange | null): Promise<void> {
  return change((store) => void (exchange === null ? store.delete(name) : store.put(exchange, name)));
}

/** One change, for which every other tab waits. */
async function change(work: (store: IDBObjectStore) => void): Promise<void> {
  const database = await opened();
  try {
    await new Promise<void>((done, fail) => {
      const asked = database.transaction("exchanges", "readwrite");
      work(asked.objectStore("exchanges"));
      asked.oncomplete = () => done();
      asked.onabort = () => fail(asked.error ?? new Error("the exchange cannot be kept"));
    });
  } finally {
    database.close();
  }
}
