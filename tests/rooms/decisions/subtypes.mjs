// Reads one JSON array of pairs of types; answers with an array of whether the first is a subtype of the second.
import { readFileSync } from "node:fs";
import { subtype } from "../../../tools/checker.mjs";

const pairs = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(pairs.map(([a, b]) => subtype(a, b))));
