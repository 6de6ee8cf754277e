// Makes a book of Sphinx's single page: a cover, and contents.
(about) => {
  document.documentElement.dataset.theme = "light";
  document.querySelectorAll("details.notes").forEach((notes) => (notes.open = true));
  const article = document.querySelector("article.bd-article");
  const make = (tag, parent, text = "", name = "") => {
    const made = parent.appendChild(document.createElement(tag));
    made.textContent = text;
    made.className = name;
    return made;
  };
  const textOf = (heading) => {
    const copy = heading.cloneNode(true);
    copy.querySelectorAll(".headerlink, mjx-assistive-mml").forEach((part) => part.remove());
    return copy.textContent.trim();
  };

  // Headings of different pages can share an id; these are their own.
  let count = 0;
  const line = (list, heading) => {
    heading.id = `contents-${(count += 1)}`;
    const item = make("li", list);
    make("a", item, textOf(heading)).href = `#${heading.id}`;
    return item;
  };
  const contents = document.createElement("nav");
  contents.className = "book-contents";
  make("div", contents, "Contents", "title");
  const list = make("ol", contents);
  line(list, article.querySelector("h1"));
  const starts = article.querySelectorAll("span[id^='document-']");
  for (const start of starts) {
    const chapter = start.nextElementSibling;
    chapter.classList.add("chapter");
    const inside = make("ol", line(list, chapter.querySelector("h2")));
    for (const heading of chapter.querySelectorAll(":scope > section > h3")) line(inside, heading);
  }

  const cover = document.createElement("div");
  cover.className = "cover";
  make("div", cover, about.title, "title");
  make("p", cover, about.author);
  make("p", cover, about.made);
  article.prepend(cover, contents);
  return starts.length;
}
