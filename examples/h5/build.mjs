/** Bundles the page into dist/; with --serve also shows it on http://127.0.0.1:5173. HEIKA_API says where Heika is. */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { build, context } from "esbuild";

const api = (process.env.HEIKA_API ?? "http://127.0.0.1:8000").replace(/\/$/, "");
const folder = process.env.H5_FOLDER ?? "dist";
const serve = process.argv.includes("--serve");

const options = {
  entryPoints: ["src/app.ts", "src/app.css"],
  bundle: true,
  format: "esm",
  // WebViews of the last three years, WeChat's among them.
  target: ["chrome100", "safari15.4"],
  charset: "utf8",
  minify: !serve,
  sourcemap: serve,
  define: { HEIKA_API: JSON.stringify(api) },
  outdir: folder,
  logLevel: "warning",
};

await mkdir(folder, { recursive: true });
const page = await readFile("src/index.html", "utf8");
await writeFile(`${folder}/index.html`, page.replaceAll("{{HEIKA_API}}", api));

if (serve) {
  const watching = await context(options);
  await watching.watch();
  await watching.serve({ servedir: folder, host: "127.0.0.1", port: 5173 });
  console.log(`黑卡烘焙: http://127.0.0.1:5173, on ${api}`);
} else {
  await build(options);
}
