// node batch.mjs CHECKER reads lines {"snapshot": text, "health": text, "certificates": [base64, …]}; answers each with an array that holds,
// for every certificate, the digest of its receipt or null.
import { createInterface } from "node:readline";

const { open, verify } = await import(process.argv[2]);

const tried = (attempt) => {
  try {
    return attempt();
  } catch {
    return null;
  }
};

for await (const line of createInterface({ input: process.stdin })) {
  const { snapshot, health, certificates } = JSON.parse(line);
  const world = tried(() => open(Buffer.from(snapshot, "base64").toString(), Buffer.from(health, "base64").toString()));
  const texts = certificates.map((data) => Buffer.from(data, "base64").toString());
  console.log(JSON.stringify(texts.map((text) => world && tried(() => verify(world, text)))));
}
