// nsqjs: the same as the clients for Python do in scenario.py, in its own words. Its own tests are run besides.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { AT, ask } from "./servers.mjs";

const nsq = createRequire(process.env.NODE_PATH + "/")("nsqjs");

const LATER_MILLISECONDS = 300;
const LARGE = Buffer.from("0123456789".repeat(30_000));
const SEVERAL = Array.from({ length: 20 }, (_, number) => `m${number}`);
const TLS = { tls: true, ca: readFileSync(AT.ca) };
const TRANSPORTS = {
  TLS,
  Snappy: { snappy: true },
  Deflate: { deflate: true },
  "TLS and Snappy": { ...TLS, snappy: true },
  "TLS and Deflate": { ...TLS, deflate: true },
};

/** A writer that is ready; `publish` and `deferPublish` tell nsqd's answer. */
async function connect(address, options) {
  const [host, port] = address.split(":");
  const writer = new nsq.Writer(host, Number(port), options);
  // A connection that ends is told as an error, too.
  writer.on("error", (error) => console.error(error));
  writer.connect();
  await once(writer, "ready");
  const answer = (publish) => (...words) =>
    new Promise((resolve, reject) =>
      publish.call(writer, ...words, (error) => (error ? reject(error) : resolve("OK"))),
    );
  return {
    publish: answer(writer.publish),
    defer: answer(writer.deferPublish),
    close: () => writer.close(),
  };
}

/** A reader; `next` tells the next message. */
function subscribe(topic, where, options) {
  const reader = new nsq.Reader(topic, "workers", { maxInFlight: 10, ...where, ...options });
  const messages = [];
  const waiting = [];
  reader.on("message", (message) => {
    const resolve = waiting.shift();
    if (resolve) resolve(message);
    else messages.push(message);
  });
  reader.on("error", (error) => console.error(error));
  reader.connect();
  return {
    next: () => (messages.length ? messages.shift() : new Promise((resolve) => waiting.push(resolve))),
    close: () => reader.close(),
  };
}

const direct = { nsqdTCPAddresses: [AT.tcp] };

async function one(reader) {
  const message = await reader.next();
  return [`${message.body}, attempt ${message.attempts}`, message];
}

console.log("# Publishing and consuming");
await ask("topic", "plain");
let writer = await connect(AT.tcp);
let reader = subscribe("plain", direct);
console.log("published:", await writer.publish("plain", "one"));
let [seen, message] = await one(reader);
console.log("consumed:", seen);
message.requeue(0, false);
[seen, message] = await one(reader);
console.log("requeued:", seen);
message.finish();
console.log("several:", await writer.publish("plain", ["x", "y", "z"]));
const bodies = [];
for (let number = 0; number < 3; number += 1) {
  message = await reader.next();
  bodies.push(message.body.toString());
  message.finish();
}
console.log("consumed:", ...bodies.sort());
const begin = performance.now();
console.log("deferred:", await writer.defer("plain", ["later"], LATER_MILLISECONDS));
[seen, message] = await one(reader);
const late = performance.now() - begin >= LATER_MILLISECONDS;
console.log("consumed:", seen, late ? "in time" : "too early");
message.finish();
await ask("finished", "plain", "workers");
reader.close();

console.log("\n# Through nsqlookupd");
await ask("topic", "found");
reader = subscribe("found", { lookupdHTTPAddresses: [AT.lookupd] });
console.log("published:", await writer.publish("found", "found"));
[seen, message] = await one(reader);
console.log("consumed:", seen);
message.finish();
await ask("finished", "found", "workers");
reader.close();

console.log("\n# Killed");
await ask("topic", "kept");
reader = subscribe("kept", direct);
const answers = await Promise.all(SEVERAL.map((body) => writer.publish("kept", body)));
console.log("published:", ...new Set(answers));
const left = new Set([...SEVERAL, "after"]);
for (let number = 0; number < 5; number += 1) {
  message = await reader.next();
  left.delete(message.body.toString());
  message.finish();
}
console.log("consumed:", 5);
await ask("kill");
await ask("start");
// Writers do not connect again, readers after a while.
reader.close();
writer = await connect(AT.tcp);
reader = subscribe("kept", direct);
await ask("subscribed", "kept", "workers");
console.log("published:", await writer.publish("kept", "after"));
// What was finished just before the kill may come again.
while (left.size) {
  message = await reader.next();
  left.delete(message.body.toString());
  message.finish();
}
console.log("consumed: all that were left");
await ask("finished", "kept", "workers");
reader.close();
writer.close();

for (const [number, [name, options]] of Object.entries(TRANSPORTS).entries()) {
  console.log("\n# " + name);
  const topic = `transport-${number}`;
  await ask("topic", topic);
  writer = await connect(AT.tcp, options);
  reader = subscribe(topic, direct, options);
  console.log("published:", await writer.publish(topic, "small"), await writer.publish(topic, LARGE));
  const both = [];
  for (let count = 0; count < 2; count += 1) {
    message = await reader.next();
    both.push(message.body);
    message.finish();
  }
  both.sort((a, b) => a.length - b.length);
  const same = both[0].toString() === "small" && both[1].equals(LARGE);
  console.log("consumed:", same ? "the same" : "something else");
  await ask("finished", topic, "workers");
  reader.close();
  writer.close();
}

console.log("\n# With a secret");
const secret = { authSecret: AT.secret };
writer = await connect(AT.guarded, secret);
console.log("published:", await writer.publish("guarded", "for me"));
reader = subscribe("guarded", { nsqdTCPAddresses: [AT.guarded] }, secret);
[seen, message] = await one(reader);
console.log("consumed:", seen);
message.finish();
const refused = await connect(AT.guarded, { authSecret: "wrong" }).catch((error) => error.message);
console.log("a wrong one:", refused);
// Its timers would go on for a while.
process.exit();
