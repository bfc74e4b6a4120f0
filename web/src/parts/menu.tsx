// A button that opens a menu: closed by Esc, by a click elsewhere, and by what is chosen in it.

import { useEffect, useRef, type ReactNode } from "react";

export function Menu({ className, summary, children, closesOnChoice = true }: {
  className: string;
  summary: ReactNode;
  children: ReactNode;
  closesOnChoice?: boolean;
}) {
  const details = useRef<HTMLDetailsElement>(null);
  useEffect(() => {
    const close = (event: Event): void => {
      const element = details.current;
      if (element === null || !element.open) return;
      if (event instanceof KeyboardEvent) {
        if (event.key !== "Escape") return;
        if (element.contains(document.activeElement)) element.querySelector("summary")?.focus();
      } else if (event.target instanceof Node && element.contains(event.target)) return;
      element.open = false;
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("focusin", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("focusin", close);
      document.removeEventListener("keydown", close);
    };
  }, []);
  return (
    <details className={className} ref={details}>
      {summary}
      <div
        className="menu"
        onClick={(event) => {
          if (closesOnChoice && event.target instanceof Element && event.target.closest("button") !== null && details.current !== null) {
            details.current.open = false;
          }
        }}
      >
        {children}
      </div>
    </details>
  );
}
