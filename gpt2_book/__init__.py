"""What only the book needs: its figures, and the checkers of its exercises."""
