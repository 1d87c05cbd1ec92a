// The servers of a test, as its scripts see them: where they are, and what can be asked of them.

import { createInterface } from "node:readline";

export const AT = JSON.parse(process.argv[2]);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something to its servers, and waits until it is done. */
export async function ask(...words) {
  console.log("@" + words.join(" "));
  const { value } = await lines.next();
  if (value !== "done") throw new Error(`the servers did not ${words.join(" ")}`);
}
