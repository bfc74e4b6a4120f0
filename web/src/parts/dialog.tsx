// A modal dialog: the browser's own, which keeps the focus in it and closes with Esc.

import { useEffect, useId, useRef, type ReactNode } from "react";

export function Dialog({ open, onClose, title, children, testid }: {
  open: boolean;
  onClose: () => void;
  title: string;
  children: ReactNode;
  testid?: string;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const from = useRef<Element>(null); // what had the focus before
  useEffect(() => {
    const element = dialog.current;
    if (element === null) return;
    if (open && !element.open) {
      from.current = document.activeElement;
      element.showModal();
    }
    if (!open && element.open) element.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      data-testid={testid}
      onClose={() => {
        // The browser gives the focus back, but not to what stands in a menu, which is closed by now: that goes to its button.
        const left = document.activeElement;
        if (left === document.body || dialog.current?.contains(left) === true) from.current?.closest("details")?.querySelector("summary")?.focus();
        onClose();
      }}
      onClick={(event) => {
        // On the backdrop: it is the dialog itself that is hit, not what is in it.
        if (event.target === dialog.current) dialog.current?.close();
      }}
    >
      {open && (
        <div className="dialog">
          <h2 id={heading}>{title}</h2>
          {children}
        </div>
      )}
    </dialog>
  );
}
