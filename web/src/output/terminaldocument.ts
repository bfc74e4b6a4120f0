// xterm.js makes style elements and style attributes, which the policy of this page forbids, since whoever could smuggle
// in either could draw over it. While there is a terminal the document makes style sheets of the one kind and
// properties of the other, which are what scripts may set.

let terminals = 0;

/** Makes the document so; the function that it gives undoes it. */
export function withoutStyleElements(): () => void {
  if (terminals++ === 0) Object.defineProperty(document, "createElement", { value: create, configurable: true });
  let done = false;
  return () => {
    if (done) return;
    done = true;
    if (--terminals === 0) Reflect.deleteProperty(document, "createElement");
  };
}

function create(name: string, options?: ElementCreationOptions): HTMLElement {
  if (name.toLowerCase() === "style") return styleElement();
  const element: HTMLElement = Document.prototype.createElement.call(document, name, options);
  element.setAttribute = (attribute, value) => {
    if (attribute.toLowerCase() === "style") element.style.cssText = value;
    else Element.prototype.setAttribute.call(element, attribute, value);
  };
  return element;
}

// An element that puts its text into a sheet of the document until it is removed.
function styleElement(): HTMLElement {
  const element: HTMLElement = Document.prototype.createElement.call(document, "span");
  element.hidden = true;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  let text = "";
  Object.defineProperty(element, "textContent", {
    get: () => text,
    set: (value: string) => {
      text = value;
      sheet.replaceSync(value);
    },
  });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}
