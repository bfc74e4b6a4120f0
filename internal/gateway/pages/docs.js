"use strict";

// Swagger UI has a dark side, and leaves it to the page when to show it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", dress);
dress();

// What a page cannot try with fetch: WebSockets, and a stream that has no end.
const untried = ["/v1/events", "/v1/socket", "/v1/commands/{command_id}/stream"];
const onlyWhatEnds = () => ({
  statePlugins: {
    spec: {
      wrapSelectors: {
        allowTryItOutFor: (original) => (state, path, method) => !untried.includes(path) && original(state, path, method),
      },
    },
  },
});

// A browser sends its cookie and its certificate by itself: what can be entered is
// a token.
const onlyTokens = () => ({
  statePlugins: {
    auth: {
      wrapActions: {
        showDefinitions: (original) => (definitions) => original(definitions && definitions.filter((d) => d.has("bearer"))),
      },
    },
  },
});

// The document has its paths in alphabetical order; of one path, what makes comes
// before what lists.
const order = ["post", "get"];
const byPath = (a, b) =>
  a.get("path") === b.get("path") ? order.indexOf(a.get("method")) - order.indexOf(b.get("method")) : a.get("path") < b.get("path") ? -1 : 1;

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  operationsSorter: byPath,
  plugins: [onlyWhatEnds, onlyTokens],
  validatorUrl: null, // it would send the document elsewhere
  persistAuthorization: false, // a token is not left in the browser's storage
});
