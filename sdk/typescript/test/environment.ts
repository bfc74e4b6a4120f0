import type { Service } from "./surroundings.js";

/** setting gives a variable that internal/test/sdk sets. */
export function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") throw new Error(`${name} is not set; these tests are run by go test ./internal/test/sdk`);
  return value;
}

async function ask(what: string): Promise<void> {
  const response = await fetch(`${setting("TELEXEC_CONTROL")}/${what}`, { method: "POST" });
  if (!response.ok) throw new Error(`${what}: HTTP ${response.status}`);
}

/** control does things to the service, through the test that has started it. */
export const control: Service = {
  restart: () => ask("restart"),
  kill: () => ask("kill"),
};
