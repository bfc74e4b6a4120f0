// What is shown where a page cannot be: after an update of the service its parts have other names, and an open page asks
// for those it knew.

import { Component, type ReactNode } from "react";

export class Boundary extends Component<{ children: ReactNode }, { failed: boolean; message: string }> {
  override state = { failed: false, message: "" };

  static getDerivedStateFromError(error: unknown) {
    return { failed: true, message: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactNode {
    if (!this.state.failed) return this.props.children;
    return (
      <section className="page narrow" data-testid="page-failed">
        <h1>This page cannot be shown</h1>
        <div className="problem" role="alert">
          <p>{this.state.message}</p>
          <p className="hint">Load it again: the service may have been updated since it was opened. What runs goes on.</p>
          <button type="button" onClick={() => location.reload()}>
            Load again
          </button>
        </div>
      </section>
    );
  }
}
