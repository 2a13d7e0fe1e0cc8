// Which attempts an executor has in hand, kept where the next page finds it: a page that is reloaded can close nothing any more,
// and without a word its processes would wait for their leases to run out.

import { ATTEMPTS, committed, opened, settled } from "../database.mjs";

export class Leftovers {
  #database;
  #name;

  constructor(name) {
    this.#name = name;
  }

  /** What an earlier page had in hand. */
  async read() {
    this.#database ??= await opened();
    return (await settled(this.#database.transaction(ATTEMPTS).objectStore(ATTEMPTS).get(this.#name))) ?? [];
  }

  /** Writes down what is in hand now. */
  async write(refs) {
    const transaction = this.#database.transaction(ATTEMPTS, "readwrite", { durability: "relaxed" });
    transaction.objectStore(ATTEMPTS).put(refs, this.#name);
    await committed(transaction);
  }
}
