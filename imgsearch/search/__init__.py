"""Search: Faiss indexes, exact search, and how well the one stands for the other."""
