// The official parser's word on the AsyncAPI document on stdin: a JSON list of what it finds.
const { Parser } = require("@asyncapi/parser");

const severities = ["error", "warning", "information", "hint"];

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { document, diagnostics } = await new Parser().parse(Buffer.concat(chunks).toString("utf-8"));
  const told = diagnostics.map(({ code, message, path, severity }) => ({
    severity: severities[severity],
    code,
    message,
    path: path.join("."),
  }));
  process.stdout.write(JSON.stringify({ parsed: document !== undefined, diagnostics: told }, null, 1) + "\n");
}

main();
