/**
 * Serves the page, the runtime and the students on this computer:
 *
 *     node serve.mjs [--port 8000] [--models ../../tflite_models]
 *
 * Any server of files does, if it sends .wasm files as application/wasm.
 */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".tflite": "application/octet-stream",
  ".wasm": "application/wasm",
};
const HEADERS = {
  // Ask whether the file has changed, and then take it from the cache.
  "Cache-Control": "no-cache",
  // Isolated pages have a clock of 5 microseconds instead of 100.
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "X-Content-Type-Options": "nosniff",
};

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "8000" },
    models: { type: "string", default: path.join(HERE, "..", "..", "tflite_models") },
  },
});

/** The file that an address stands for, or null where there is none to be given. */
function fileFor(address) {
  const name = decodeURIComponent(new URL(address, "http://localhost").pathname);
  const [root, rest] = name.startsWith("/models/")
    ? [path.resolve(options.models), name.slice("/models".length)]
    : [HERE, name.endsWith("/") ? `${name}index.html` : name];
  const file = path.join(root, path.normalize(rest));
  return file.startsWith(root + path.sep) && path.extname(file) in TYPES ? file : null;
}

async function answer(request, response) {
  const file = ["GET", "HEAD"].includes(request.method) ? fileFor(request.url) : null;
  const { size, mtimeMs } = file === null ? {} : await stat(file);
  if (size === undefined) throw new Error("no such file");
  const tag = `"${size}-${Math.round(mtimeMs)}"`;
  const headers = { ...HEADERS, "Content-Type": TYPES[path.extname(file)], ETag: tag };
  if (request.headers["if-none-match"] === tag) {
    response.writeHead(304, headers).end();
    return;
  }
  response.writeHead(200, { ...headers, "Content-Length": size });
  if (request.method === "HEAD") response.end();
  else createReadStream(file).pipe(response);
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("There is no such file.\n");
  });
});
server.on("error", (error) => {
  const fix = error.code === "EADDRINUSE" ? ": choose another one with --port" : "";
  console.error(`Port ${options.port} cannot be used (${error.message})${fix}`);
  process.exitCode = 2;
});
server.listen(Number(options.port), "127.0.0.1", () => {
  console.log(`Draw a digit: http://localhost:${server.address().port}/ (Ctrl+C to stop)`);
});
