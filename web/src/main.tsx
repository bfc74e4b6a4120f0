import { createRoot } from "react-dom/client";
import { App } from "./app.tsx";
import { applyTheme, chosenTheme } from "./theme.ts";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/pages.css";
import "./styles/output.css";

applyTheme(chosenTheme());
const root = document.getElementById("root");
if (root !== null) createRoot(root).render(<App />);
