import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page is served under a strict policy: scripts, styles and pictures come from files, nothing is inlined.
export default defineConfig({
  plugins: [react()],
  resolve: {
    alias: { "@telexec/client": fileURLToPath(new URL("../sdk/typescript/src/index.ts", import.meta.url)) },
  },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // What is built is committed, and must come out the same everywhere.
    sourcemap: false,
    license: { fileName: "licenses.md" },
    reportCompressedSize: false,
  },
  server: {
    // For work on the UI: npm run dev -w web beside a telexecd; sign in at its own address first.
    proxy: {
      "/v1": { target: "http://127.0.0.1:7080", ws: true },
      "^/(login|logout|docs|openapi.json)": "http://127.0.0.1:7080",
    },
  },
});
