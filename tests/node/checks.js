// What the scripts share: where the node is, and checks that say what they check.

import process from "node:process";

const given = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`no ${name}`);
  return value;
};

export const URL = given("SELVEDGE_URL");
export const KEY = given("SELVEDGE_KEY");
/** A key of an account that has spent its budget. */
export const SPENT = given("SELVEDGE_SPENT");
/** A model of the node itself. */
export const MODEL = given("SELVEDGE_MODEL");
/** A model of a provider that speaks like Anthropic. */
export const ANTHROPIC = given("SELVEDGE_ANTHROPIC");
/** What the provider says to everything. */
export const SAID = "Good morning, how are you?";
export const QUESTION = [{ role: "user", content: "Good morning!" }];
const PROVIDER = given("SELVEDGE_PROVIDER");

/** Prints one line per check and ends the script with the first one that fails. */
export function check(what, good, seen) {
  if (good) {
    console.log("ok", what);
    return;
  }
  console.error(`FAILED ${what}:`, seen);
  process.exit(1);
}

/** The error that a call ends with, which is of this class. */
export async function fails(what, kind, call) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    check(`${what}: ${kind.name}`, error instanceof kind, error);
    return error;
  }
  check(`${what} fails`, false, answer);
}

/** Whether a client of the provider has left in the middle of an answer; waits for it. */
export async function left() {
  const answer = await fetch(`${PROVIDER}/left`);
  return (await answer.json()).left;
}

export function done() {
  console.log("all good");
}
