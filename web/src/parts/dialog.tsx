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
  useEffect(() => {
    const element = dialog.current;
    if (element === null) return;
    if (open && !element.open) element.showModal();
    if (!open && element.open) element.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      data-testid={testid}
      onClose={onClose}
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
