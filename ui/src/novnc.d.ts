// What of noVNC is used: its own types are not a module.
declare module "@novnc/novnc" {
  export default class RFB extends EventTarget {
    constructor(target: Element, url: string, options?: { shared?: boolean });
    scaleViewport: boolean;
    background: string;
    readonly capabilities: { power: boolean };
    disconnect(): void;
    focus(): void;
    sendCtrlAltDel(): void;
    clipboardPasteFrom(text: string): void;
  }
}
