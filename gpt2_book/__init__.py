"""What only the book needs: its figures, and what checks the exercises."""
