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
      // Pages without https have no locks; there, tabs that renew in the same moment end their session.
      const locks = globalThis.navigator?.locks;
      return locks ? locks.request(name, turn) : turn();
    },
  };
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
async function keep(name: string, exchange: Exchange | null): Promise<void> {
  const database = await opened();
  try {
    await new Promise<void>((done, fail) => {
      const change = database.transaction("exchanges", "readwrite");
      if (exchange === null) change.objectStore("exchanges").delete(name);
      else change.objectStore("exchanges").put(exchange, name);
      change.oncomplete = () => done();
      change.onabort = () => fail(change.error ?? new Error("the exchange cannot be kept"));
    });
  } finally {
    database.close();
  }
}
