// Which attempts an executor has in hand, kept where the next page finds it: a page that is reloaded can close nothing any more,
// and without a word its processes would wait for their leases to run out.

import { ATTEMPTS, committed, opened, settled } from "../database.mjs";

export class Leftovers {
  #database = null;
  #name;

  constructor(name) {
    this.#name = name;
  }

  /** What an earlier page had in hand. */
  async read() {
    const transaction = (await this.#opened()).transaction(ATTEMPTS);
    return (await settled(transaction.objectStore(ATTEMPTS).get(this.#name))) ?? [];
  }

  /** Writes down what is in hand now. */
  async write(refs) {
    const transaction = (await this.#opened()).transaction(ATTEMPTS, "readwrite", { durability: "relaxed" });
    transaction.objectStore(ATTEMPTS).put(refs, this.#name);
    await committed(transaction);
  }

  /** Calls that come while it is being opened wait together, and so go on in their order. */
  #opened() {
    this.#database ??= opened().then(
      (database) => {
        // Who deletes this site's data is not held up, and what is written later goes into a new database.
        database.onversionchange = () => {
          database.close();
          this.#database = null;
        };
        database.onclose = database.onversionchange;
        return database;
      },
      (error) => {
        this.#database = null;
        throw error;
      },
    );
    return this.#database;
  }
}
