// A way to the service on which things go wrong: a TCP proxy that cuts, swallows, delays and refuses.

import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { Faults } from "./surroundings.js";

export class Proxy implements Faults {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #hanging = false;
  #swallowing = 0;
  #refusing = false;
  #delayMs = 0;
  #received = 0;

  private constructor(host: string, port: number) {
    this.#server = createServer((client) => this.#accept(client, connect(port, host)));
  }

  static async start(target: string): Promise<Proxy> {
    const { hostname, port } = new URL(target);
    const p = new Proxy(hostname, Number(port));
    await new Promise<void>((resolve) => p.#server.listen(0, "127.0.0.1", resolve));
    return p;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #accept(client: Socket, service: Socket): void {
    const pair = [client, service] as const;
    this.#pairs.add(pair);
    for (const socket of pair) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined); // a close follows
      socket.on("close", () => {
        client.destroy();
        service.destroy();
        this.#pairs.delete(pair);
      });
      if (this.#hanging) socket.pause();
    }
    client.on("data", (data) => {
      if (this.#refusing && /^upgrade: websocket/im.test(data.toString("latin1"))) {
        client.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
      }
      this.#pass(client, service, data);
    });
    service.on("data", (data) => {
      this.#received += data.length;
      if (this.#swallowing > 0) {
        this.#swallowing--;
        client.destroy();
        return;
      }
      this.#pass(service, client, data);
    });
    client.on("end", () => service.end());
    service.on("end", () => client.end());
  }

  #pass(from: Socket, to: Socket, data: Buffer): void {
    const write = (): void => {
      if (to.destroyed || to.write(data)) return;
      from.pause();
      to.once("drain", () => {
        if (!this.#hanging) from.resume();
      });
    };
    if (this.#delayMs > 0) setTimeout(write, this.#delayMs);
    else write();
  }

  async cut(): Promise<void> {
    for (const [client, service] of this.#pairs) {
      client.resetAndDestroy();
      service.destroy();
    }
  }

  async hang(on: boolean): Promise<void> {
    this.#hanging = on;
    for (const pair of this.#pairs) for (const socket of pair) on ? socket.pause() : socket.resume();
  }

  async swallow(n: number): Promise<void> {
    this.#swallowing = n;
  }

  async refuseUpgrades(on: boolean): Promise<void> {
    this.#refusing = on;
  }

  async delay(ms: number): Promise<void> {
    this.#delayMs = ms;
  }

  async received(): Promise<number> {
    return this.#received;
  }

  /** mend takes back all faults. */
  async mend(): Promise<void> {
    await this.hang(false);
    this.#swallowing = this.#delayMs = 0;
    this.#refusing = false;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    await this.cut();
    await closed;
  }
}
