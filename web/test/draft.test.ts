import assert from "node:assert/strict";
import { test } from "node:test";
import { emptyStep, hostsOf, mistakesOf, placed, priorityOf, specOf, type StepDraft } from "../src/draft.ts";

const step = (change: Partial<StepDraft> = {}): StepDraft => ({ ...emptyStep("web1"), command: "true", ...change });

/** The fields that are wrong. */
const wrong = (change: Partial<StepDraft>, ...names: string[]): string[] => Object.keys(mistakesOf(step(change), names));

test("what is typed", () => {
  assert.deepEqual(hostsOf(" web1, web2\nweb1  web3,"), ["web1", "web2", "web3"]);
  assert.deepEqual([priorityOf(""), priorityOf("-7"), priorityOf("101"), priorityOf("x"), priorityOf("1.5")], [0, -7, undefined, undefined, undefined]);
  assert.deepEqual(wrong({ name: "a b-1", timeout: "90s" }, "a b-1", ""), []);
  assert.deepEqual(wrong({ name: "<b>", timeout: "soon" }, "<b>"), ["name", "timeout"]);
  assert.deepEqual(mistakesOf(step({ name: "a" }), ["a", "a "]), { name: "Another step has this name" });
});

test("a step is on hosts, on those with labels, or in a session", () => {
  assert.deepEqual([placed(step()), placed(step({ hosts: "" })), placed(step({ hosts: " ", hostLabels: "group=web" })), placed(step({ hosts: "", session: "s" }))], [true, false, true, true]);
  assert.deepEqual(wrong({ hosts: "", hostLabels: "group=web" }), []);
  assert.deepEqual(wrong({ hostLabels: "group=web" }), ["hosts", "hostLabels"]);
  assert.deepEqual(wrong({ session: "s", hostLabels: "group=web" }), ["hosts", "hostLabels", "session"]);
  assert.deepEqual(wrong({ hosts: "", hostLabels: "group" }), ["hostLabels"]);
  assert.deepEqual(wrong({ hosts: "", hostLabels: Array.from({ length: 9 }, (_, i) => `k${i}=v`).join() }), ["hostLabels"]);
  assert.deepEqual(wrong({ hosts: "", session: "a b" }), ["session"]);
  assert.deepEqual(wrong({ hosts: "web1 -web2" }), ["hosts"]);
  assert.deepEqual(wrong({ hosts: "", session: "s", directory: "/srv", sudo: "root" }), ["directory", "sudo"]);
});

test("the rest of a step", () => {
  assert.deepEqual(wrong({ directory: "/srv", sudo: "www-data", action: "roll.out" }), []);
  assert.deepEqual(wrong({ sudo: "-x", action: "Roll out" }), ["sudo", "action"]);
  assert.deepEqual(wrong({ timeout: "400d" }), ["timeout"]);
  for (const retries of ["0", "21", "x", "1.5"]) assert.deepEqual(wrong({ retries }), ["retries"], retries);
  assert.deepEqual(wrong({ retries: "20", backoff: "1h" }), []);
  assert.deepEqual(wrong({ retries: "3", backoff: "2h" }), ["backoff"]);
  assert.deepEqual(wrong({ backoff: "5s" }), ["backoff"], "of what is not tried again");
});

test("how a step goes over several hosts", () => {
  assert.deepEqual(wrong({ parallel: "2" }), ["parallel"], "there is one");
  assert.deepEqual(wrong({ hosts: "", session: "s", goOn: true }), ["goOn"]);
  assert.deepEqual(wrong({ hosts: "a b c", parallel: "2", canary: "2", goOn: true }), []);
  assert.deepEqual(wrong({ hosts: "a b c", parallel: "101", canary: "3" }), ["parallel", "canary"], "none is left behind the canaries");
  assert.deepEqual(wrong({ hosts: "", hostLabels: "a=b", canary: "1000", parallel: "100" }), []);
  assert.deepEqual(wrong({ hosts: "", hostLabels: "a=b", canary: "1001", parallel: "0" }), ["parallel", "canary"]);
});

test("what is sent of a step", () => {
  assert.deepEqual(specOf(step({ name: " a ", undo: "false" })), { name: "a", command: "true", undo: "false", needsApproval: false, onFailure: "stop", host: "web1" });
  assert.deepEqual(specOf(step({ hosts: "a, b", timeout: "1.5s", retries: "3", backoff: "2s", parallel: "2", canary: "1", goOn: true, directory: " /srv ", sudo: "root", action: "deploy" })), {
    name: "", command: "true", undo: "", needsApproval: false, onFailure: "stop", hosts: ["a", "b"], timeout: { seconds: 1n, nanos: 500_000_000 },
    workingDirectory: "/srv", sudoUser: "root", actionType: "deploy", retry: { times: 3, backoff: { seconds: 2n, nanos: 0 } }, rollout: { parallel: 2, canary: 1, goOn: true },
  });
  assert.deepEqual(specOf(step({ hosts: "", hostLabels: "group=web, zone=a", canary: "1" })), {
    name: "", command: "true", undo: "", needsApproval: false, onFailure: "stop", hostLabels: { group: "web", zone: "a" }, rollout: { parallel: 0, canary: 1, goOn: false },
  });
  assert.deepEqual(specOf(step({ hosts: "", session: " s ", retries: "1" })), { name: "", command: "true", undo: "", needsApproval: false, onFailure: "stop", session: "s", retry: { times: 1 } });
});
