// Does with Toxiproxy's client for Node.js what its users do, and prints what came of it. As client.py.

import { connect } from "node:net";
import { createRequire } from "node:module";

// Where the client is installed is said by an environment variable, as for any program.
const require = createRequire(`${process.env.NODE_PATH}/here`);
const { Toxiproxy } = require("toxiproxy-node-client");

const [api, echo] = process.argv.slice(2);
const PATIENCE_MILLISECONDS = 20_000;
const TRIES = 50;

// Opens a connection and lets `use` do something with it; resolves to what came, how that ended and after
// how many milliseconds. `enough` bytes are an end, too.
function converse(proxy, use, enough = Infinity) {
  const [host, port] = proxy.listen.split(":");
  return new Promise((resolve) => {
    let begin;
    let came = "";
    const socket = connect({ host, port: Number(port), allowHalfOpen: true });
    const done = (how) => {
      resolve({ came, how, took: performance.now() - begin });
      socket.destroy();
    };
    socket.setTimeout(PATIENCE_MILLISECONDS, () => done("silence"));
    socket.on("connect", () => {
      begin = performance.now();
      use(socket);
    });
    socket.on("data", (data) => {
      came += data;
      if (came.length >= enough) done("enough");
    });
    socket.on("end", () => done("end"));
    socket.on("error", (error) => done({ ECONNRESET: "reset", ECONNREFUSED: "refused" }[error.code] ?? error.code));
  });
}

async function talk(proxy, text = "hello") {
  const { came, how, took } = await converse(proxy, (it) => it.write(text), text.length);
  if (came === text) return ["echo", took];
  if (how !== "end") return [how, took];
  return [text.startsWith(came) ? `the first ${came.length} bytes` : "nonsense", took];
}

const when = (took, least) => `${took >= least ? "not before" : "before"} ${least} ms`;

async function slow(proxy, least, text) {
  const [came, took] = await talk(proxy, text);
  return `${came}, ${when(took, least)}`;
}

async function quick(proxy, most) {
  for (let tried = 0; tried < TRIES; tried += 1) {
    const [came, took] = await talk(proxy);
    if (came === "echo" && took < most) return true;
  }
  return false;
}

async function end(proxy, least) {
  const { came, how, took } = await converse(proxy, (it) => it.end("hello"));
  return `${came} and the ${how}, ${when(took, least)}`;
}

async function refusal(what) {
  try {
    await what();
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`;
  }
  return "nothing";
}

const names = async () => Object.keys(await server.getAll()).sort();

const server = new Toxiproxy(`http://${api}`);
console.log("version:", JSON.parse(await server.getVersion()).version);
console.log("proxies:", await names());

console.log("\n# Proxies");
let proxy = await server.createProxy({ name: "echo", listen: "127.0.0.1:0", upstream: echo });
console.log("created:", proxy.name, proxy.upstream === echo, proxy.enabled);
console.log("through it:", (await talk(proxy))[0]);
console.log("known:", await names(), (await server.get("echo")).listen === proxy.listen);
const before = converse(proxy, () => {});
// Once another one is through, the first is open, too.
await talk(proxy);
proxy = await proxy.update({ enabled: false, listen: proxy.listen, upstream: proxy.upstream });
console.log("down:", proxy.enabled, (await talk(proxy))[0]);
console.log("what was open has ended:", ["end", "reset"].includes((await before).how));
proxy = await proxy.update({ enabled: true, listen: proxy.listen, upstream: proxy.upstream });
console.log("up again:", proxy.enabled, (await talk(proxy))[0]);

console.log("\n# Toxics");
let late = await proxy.addToxic({ type: "latency", attributes: { latency: 200, jitter: 0 } });
console.log("latency:", late.name, late.stream, late.toxicity, await slow(proxy, 200));
late = await late.update({ attributes: { latency: 400, jitter: 0 }, toxicity: 1 });
console.log("longer:", late.attributes.latency, await slow(proxy, 400));
const other = await proxy.addToxic({
  name: "other", type: "latency", stream: "upstream", toxicity: 1, attributes: { latency: 100, jitter: 0 },
});
console.log("both ways:", await slow(proxy, 500));
const { name, type, stream, toxicity, attributes } = (await proxy.getToxic("other")).toJson();
console.log("shown:", name, type, stream, toxicity, attributes.latency, attributes.jitter);
await late.remove();
await other.remove();
console.log("quick again:", await quick(proxy, 100));
for (const [name, type, stream, attributes, effect] of [
  ["rate", "bandwidth", "upstream", { rate: 100 }, () => slow(proxy, 150, "x".repeat(20_000))],
  ["back", "bandwidth", "downstream", { rate: 100 }, () => slow(proxy, 150, "x".repeat(20_000))],
  [
    "slices", "slicer", "downstream", { average_size: 10, size_variation: 0, delay: 1000 },
    () => slow(proxy, 40, "x".repeat(500)),
  ],
  ["end", "slow_close", "upstream", { delay: 200 }, () => end(proxy, 200)],
  ["short", "limit_data", "downstream", { bytes: 3 }, () => talk(proxy).then((it) => it[0])],
  ["silence", "timeout", "downstream", { timeout: 100 }, () => slow(proxy, 100)],
  ["reset", "reset_peer", "upstream", { timeout: 0 }, () => talk(proxy).then((it) => it[0])],
]) {
  const toxic = await proxy.addToxic({ name, type, stream, toxicity: 1, attributes });
  console.log(`${toxic.name} (${toxic.type} ${toxic.stream}): ${await effect()}`);
  await toxic.remove();
}
await proxy.addToxic({ type: "latency", toxicity: 0, attributes: { latency: 60_000, jitter: 0 } });
console.log("on no connection:", await quick(proxy, 1000));

console.log("\n# Errors");
console.log(await refusal(() => server.createProxy({ name: "echo", listen: "127.0.0.1:0", upstream: echo })));
console.log(await refusal(() => server.get("other")));
console.log(await refusal(() => proxy.addToxic({ type: "nonsense", attributes: {} })));
console.log(await refusal(() => proxy.addToxic({ name: "x", type: "latency", stream: "sideways", attributes: {} })));
console.log(await refusal(() => proxy.getToxic("none")));
console.log(await refusal(() => other.remove()));

console.log("\n# Many");
await proxy.addToxic({ name: "forever", type: "latency", attributes: { latency: 60_000, jitter: 0 } });
const made = await server.populate([
  { name: "two", listen: "127.0.0.1:0", upstream: echo, enabled: true },
  { name: "three", listen: "127.0.0.1:0", upstream: echo, enabled: false },
]);
console.log("populated:", Object.keys(made), "of", await names());
console.log("through them:", (await talk(made.two))[0], (await talk(made.three))[0]);
await server.reset();
const all = Object.values(await server.getAll());
console.log("reset:", all.map((it) => `${it.name} ${it.enabled}`));
console.log("through them:", await Promise.all(all.map(async (it) => (await talk(it))[0])));
await made.two.remove();
console.log("removed:", (await talk(made.two))[0], await names());
for (const it of Object.values(await server.getAll())) await it.remove();
console.log("all:", await names(), (await talk(proxy))[0]);
