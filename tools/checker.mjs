#!/usr/bin/env node
// Check certificates of routing decisions: node checker.mjs SNAPSHOT HEALTH CERTIFICATE...
//
// SNAPSHOT holds header, policy and contracts; without contracts, the header is taken as it is and certificates of the
// short form are checked. Exit status 0: each certificate proves its decision; 1: not. Built-in modules only; shares no
// code with the service. Where checker.py makes the one right certificate and compares, this one reads what the
// certificate claims and checks claim by claim: two programs, two ways.
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const LEVELS = ["public", "internal", "confidential", "restricted"];
const STATES = ["draft", "active", "draining", "retired"];
const NUMBERS = ["trust", "cost_pusd", "latency_us", "error_ppb"];

const need = (holds, what) => {
  if (holds !== true) throw new Error(what);
};
const sha = (data) => createHash("sha256").update(data).digest();
const hex = (value) => sha(canonical(value)).toString("hex");
const own = (object, key, otherwise) => (Object.hasOwn(object, key) ? object[key] : otherwise);

/** RFC 8785 for what may stand in a document: ASCII keys, integers below 2^53. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const keys = Object.keys(value).sort();
    need(keys.every((key) => /^[\x00-\x7f]*$/.test(key)), "a key is not ASCII");
    return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(",")}}`;
  }
  need(typeof value !== "number" || Number.isSafeInteger(value), "a number is no safe integer");
  return JSON.stringify(value);
}

function read(data, what) {
  const value = JSON.parse(data);
  need(canonical(value) === data, `${what} is not canonical JSON`);
  return value;
}

const hasExactly = (object, ...keys) => canonical(Object.keys(object).sort()) === canonical(keys.sort());
const within = (part, whole) => part.every((item) => whole.includes(item));
const isSet = (words) => Array.isArray(words) && words.every((w, i) => typeof w === "string" && (i === 0 || words[i - 1] < w));
const rank = (level) => {
  need(LEVELS.includes(level), "unknown level");
  return LEVELS.indexOf(level);
};

/** RFC 6962 root, iteratively: a stack of perfect subtrees, as their sizes collide they are joined. */
function treeRoot(leaves) {
  const stack = [];
  leaves.forEach((leaf, i) => {
    stack.push(leaf);
    for (let n = i + 1; n % 2 === 0; n /= 2) stack.push(join(...stack.splice(-2)));
  });
  while (stack.length > 1) stack.push(join(...stack.splice(-2)));
  return stack[0] ?? sha("");
}
const join = (a, b) => sha(Buffer.concat([Buffer.from([1]), a, b]));
const leaf = (contract) => sha(Buffer.concat([Buffer.from([0]), Buffer.from(canonical(contract))]));

/** Root of `size` leaves of which the first are known and the rest come as subtrees from left to right. */
function rootFromPrefix(known, size, rest) {
  const left = rest.map((node) => {
    need(/^[0-9a-f]{64}$/.test(node), "a node is no digest");
    return Buffer.from(node, "hex");
  });
  const build = (low, count) => {
    if (low + count <= known.length) return treeRoot(known.slice(low, low + count));
    if (low >= known.length) {
      need(left.length > 0, "a node is missing");
      return left.shift();
    }
    let half = 1;
    while (half * 2 < count) half *= 2;
    const first = build(low, half);
    return join(first, build(low + half, count - half));
  };
  const made = build(0, size);
  need(left.length === 0 && known.length <= size, "too many nodes or services");
  return made;
}

const LOWER = ["minimum", "minLength", "minItems"];
const UPPER = ["maximum", "maxLength", "maxItems"];

/** Whether every value of type a is shown to be one of type b. */
export function subtype(a, b) {
  if (a === false || b === true) return true;
  if (a === true || b === false) return false;
  return own(a, "anyOf", [a]).every((one) => own(b, "anyOf", [b]).some((other) => branchFits(one, other)));
}

function branchFits(a, b) {
  if (Object.hasOwn(b, "const")) return Object.hasOwn(a, "const") && a.const === b.const;
  if (Object.hasOwn(a, "const")) {
    const value = a.const;
    if (typeof value === "boolean") a = { type: "boolean" };
    else if (typeof value === "number") a = { type: "integer", minimum: value, maximum: value };
    else a = { type: "string", minLength: [...value].length, maxLength: [...value].length };
  }
  if (a.type !== b.type && !(a.type === "integer" && b.type === "number")) return false;
  if (LOWER.some((key) => Object.hasOwn(b, key) && !(own(a, key, -Infinity) >= b[key]))) return false;
  if (UPPER.some((key) => Object.hasOwn(b, key) && !(own(a, key, Infinity) <= b[key]))) return false;
  if (a.type === "array") return own(a, "maxItems") === 0 || subtype(own(a, "items", true), own(b, "items", true));
  if (a.type !== "object") return true;
  const [ofA, ofB] = [own(a, "properties", {}), own(b, "properties", {})];
  const [anyA, anyB] = [own(a, "additionalProperties", true), own(b, "additionalProperties", true)];
  return (
    within(own(b, "required", []), own(a, "required", [])) &&
    [...Object.keys(ofA), ...Object.keys(ofB)].every((key) => subtype(own(ofA, key, anyA), own(ofB, key, anyB))) &&
    subtype(anyA, anyB)
  );
}

/** Value of a rule's condition. */
function value(condition, request, service) {
  const [operator, ...parts] = condition;
  if (operator === "value") return parts[0];
  if (operator === "request" || operator === "service") {
    const from = operator === "request" ? request : service;
    const found = own(from.data_class, parts[0], own(from, parts[0]));
    need(found !== undefined, "unknown attribute");
    return found;
  }
  const held = parts.map((part) => value(part, request, service));
  const [a, b] = held;
  switch (operator) {
    case "not":
      return !a;
    case "and":
      return held.every(Boolean);
    case "or":
      return held.some(Boolean);
    case "le":
      return typeof a === "string" ? rank(a) <= rank(b) : a <= b;
    case "eq":
      return a === b;
    case "in":
      return b.includes(a);
    case "subset":
      return within(a, b);
    default:
      throw new Error("unknown operator");
  }
}

function checkFields(document, what) {
  need(NUMBERS.every((name) => Number.isSafeInteger(document[name]) && document[name] >= 0), `${what}: a quantity`);
  need([document.capabilities, document.scopes, document.data_class.tags].every(isSet), `${what}: a set`);
  rank(document.data_class.level);
}

/** Gate by gate, in order, whether the service passes. */
function* gates(request, service, policy, health) {
  const [mine, its] = [request.data_class, service.data_class];
  yield ["active", service.state === "active"];
  yield ["healthy", !Object.hasOwn(health.down, `${service.name}@${service.version}`)];
  yield ["capabilities", within(request.capabilities, service.capabilities)];
  yield ["input", subtype(request.input, service.input)];
  yield ["output", subtype(service.output, request.output)];
  yield ["scopes", within(service.scopes, request.scopes)];
  yield ["level", rank(mine.level) <= rank(its.level)];
  yield ["tags", within(mine.tags, its.tags)];
  yield ["trust", service.trust >= request.trust];
  yield ["cost", service.cost_pusd <= request.cost_pusd];
  yield ["latency", service.latency_us <= request.latency_us];
  yield ["error", service.error_ppb <= request.error_ppb];
  const holds = (rule) => value(rule.when, request, service) === true;
  for (const rule of policy.rules) if (rule.effect === "forbid") yield [`forbid:${rule.id}`, !holds(rule)];
  yield ["permit", policy.rules.some((rule) => rule.effect === "permit" && holds(rule))];
}

function firstFailure(...world) {
  for (const [name, passed] of gates(...world)) if (!passed) return name;
  return null;
}

/** Negative when a wins over b: weight as exact integers, then name, then version. */
function compare(a, b, weights) {
  const weigh = (service) =>
    BigInt(weights.cost) * BigInt(service.cost_pusd) +
    BigInt(weights.latency) * BigInt(service.latency_us) +
    BigInt(weights.error) * BigInt(service.error_ppb) +
    BigInt(weights.distrust) * BigInt(100 - service.trust);
  const [first, second] = [weigh(a), weigh(b)];
  if (first !== second) return first < second ? -1 : 1;
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.version - b.version;
}

function audit({ header, policy, contracts }) {
  contracts.forEach((contract, i) => {
    checkFields(contract, "contract");
    need(STATES.includes(contract.state), "contract: state");
    const before = contracts[i - 1];
    const after = !before || before.name < contract.name || (before.name === contract.name && before.version < contract.version);
    need(after, "contracts are not sorted or not unique");
  });
  const leaves = new Map(contracts.map((contract) => [contract, leaf(contract)]));
  const rankings = {};
  for (const [profile, weights] of Object.entries(policy.profiles)) {
    const ordered = [...contracts].sort((a, b) => compare(a, b, weights));
    for (const word of new Set(contracts.flatMap((contract) => contract.capabilities))) {
      const offering = ordered.filter((contract) => contract.capabilities.includes(word));
      const root = treeRoot(offering.map((contract) => leaves.get(contract)));
      rankings[`${word}|${profile}`] = [offering.length, root.toString("hex")];
    }
  }
  const root = treeRoot([...leaves.values()]).toString("hex");
  const { sequence, previous } = header;
  const made = { v: 1, sequence, previous, count: contracts.length, root, policy: hex(policy), rankings };
  need(canonical(made) === canonical(header), "the header is not of these contracts and this policy");
}

/** What certificates are checked against. Takes canonical JSON texts; throws when they do not fit together. */
export function open(snapshotText, healthText) {
  const [snapshot, health] = [read(snapshotText, "snapshot"), read(healthText, "health")];
  need(hex(snapshot.policy) === snapshot.header.policy, "the policy is not the header's");
  if (snapshot.contracts) audit(snapshot);
  return { snapshot, health, names: { snapshot: hex(snapshot.header), health: hex(health) } };
}

/** Digest of the receipt of a certificate (canonical JSON text) that proves its decision; throws otherwise. */
export function verify({ snapshot, health, names }, text) {
  const { header, policy, contracts } = snapshot;
  const certificate = read(text, "certificate");
  const { v, form, receipt, request, reasons } = certificate;
  const isShort = form === "short";
  need(isShort || form === "full", "unknown form");
  need(v === 1 && hasExactly(certificate, "v", "form", "receipt", "request", "reasons", ...(isShort ? ["shown", "rest"] : [])), "fields");
  need(receipt.v === 1 && hasExactly(receipt, "v", "request", "snapshot", "health", "decision"), "fields of the receipt");
  need(receipt.request === hex(request), "the receipt is of another request");
  need(receipt.snapshot === names.snapshot && receipt.health === names.health, "the receipt is of another world");
  checkFields(request, "request");
  const weights = own(policy.profiles, request.profile);
  need(weights !== undefined, "unknown profile");

  const shown = isShort ? certificate.shown : contracts;
  need(Array.isArray(shown) && shown.length === reasons.length, "a reason for each service");
  const chosen = shown.filter((_, i) => reasons[i] === "winner");
  need(chosen.length <= 1, "more than one winner");
  const [winner] = chosen;
  const decision = winner ? { name: winner.name, version: winner.version } : null;
  need(canonical(decision) === canonical(receipt.decision), "the decision is not the winner");

  if (isShort) {
    const ranking = `${request.capabilities[0]}|${request.profile}`;
    const [size, root] = own(header.rankings, ranking, [0, sha("").toString("hex")]);
    need(rootFromPrefix(shown.map(leaf), size, certificate.rest).toString("hex") === root, "not the ranking's beginning");
    need(winner ? shown.at(-1) === winner : shown.length === size, "the wrong ones are shown");
  }
  shown.forEach((service, i) => {
    checkFields(service, "service");
    const failure = firstFailure(request, service, policy, health);
    if (service === winner) need(failure === null, `the winner fails ${failure}`);
    else if (failure !== null) need(reasons[i] === failure, `service ${i} fails ${failure}`);
    else need(!isShort && reasons[i] === "dominated" && Boolean(winner) && compare(winner, service, weights) < 0, `service ${i} is better`);
  });
  return hex(receipt);
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    const [snapshot, health, ...files] = process.argv.slice(2);
    const world = open(readFileSync(snapshot, "utf8"), readFileSync(health, "utf8"));
    for (const file of files) console.log(`VERIFIED ${file}: receipt ${verify(world, readFileSync(file, "utf8"))}`);
  } catch (error) {
    console.log(`NOT VERIFIED: ${error.message}`);
    process.exitCode = 1;
  }
}
