import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Below this a packed twin saves nothing. */
const PACKED_MIN = 512;

/** Writes a .br and a .gz beside each file: the daemon packs nothing itself. */
function packed(folder: string): Plugin {
  const pack = (within: string) => {
    for (const name of readdirSync(within)) {
      const path = join(within, name);
      if (statSync(path).isDirectory()) {
        pack(path);
        continue;
      }
      const plain = readFileSync(path);
      if (plain.length < PACKED_MIN || /\.(br|gz|woff2|png)$/.test(name)) continue;
      const params = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
      writeFileSync(`${path}.br`, brotliCompressSync(plain, { params }));
      writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
    }
  };
  return { name: "packed", apply: "build", closeBundle: () => pack(folder) };
}

export default defineConfig(({ mode }) => ({
  plugins: [svelte(), packed("dist/web")],
  build: {
    outDir: "dist/web",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // A daemon started by hand: `TRINE_SERVER=https://127.0.0.1:8443 npm run dev`.
  server: {
    proxy: {
      "/v1": {
        target: process.env["TRINE_SERVER"] ?? "https://127.0.0.1:8443",
        secure: false,
        ws: true,
      },
    },
  },
  resolve: mode === "test" ? { conditions: ["browser"] } : {},
  test: { environment: "jsdom", include: ["tests/**/*.test.ts"], testTimeout: 60_000 },
}));
