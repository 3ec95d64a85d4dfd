/** Accept pictures that are chosen, photographed, dropped or pasted. */

/** Call `take(file)` with each picture, and `refuse(reason)` for anything else. */
export function listen({ take, refuse }) {
  const $ = (id) => document.getElementById(id);
  for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) take(file);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }

  const receive = (transfer, none) => {
    const files = [...transfer.files];
    const file = files.find((one) => one.type.startsWith("image/")) ?? files[0];
    if (file) take(file);
    else refuse(none);
  };

  document.addEventListener("paste", (event) => {
    event.preventDefault();
    receive(event.clipboardData, "There is no image on the clipboard.");
  });

  const shade = $("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    shade.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) shade.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    shade.hidden = true;
    receive(event.dataTransfer, "That is not an image file. Save the image first, then drop the file.");
  });
}
