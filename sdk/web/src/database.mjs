// What this browser keeps for pages of this origin: keys, and which attempts executors have in hand.

const DATABASE = "colonies";
export const KEYS = "keys";
export const ATTEMPTS = "attempts";

/** The browser does not keep what it is asked to. */
export class StorageError extends Error {
  name = "StorageError";
}

const refused = (error) => new StorageError(`this browser keeps nothing for this page: ${error?.message || "it does not say why"}`);

/** A request's result. */
export const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(refused(request.error));
  });

/** When a transaction is written. */
export const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(refused(transaction.error));
  });

/** The database. */
export async function opened() {
  let request;
  try {
    request = indexedDB.open(DATABASE, 1);
  } catch (error) {
    throw refused(error);
  }
  request.onupgradeneeded = () => {
    for (const store of [KEYS, ATTEMPTS]) request.result.createObjectStore(store);
  };
  return settled(request);
}
